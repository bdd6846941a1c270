"""Talks to a running server with OpenAI's client: a stream, a tool call, and what speculation did.

Start a server with `outrider serve`, then run it from the repository: python examples/server_client.py [URL]
"""

import sys

from openai import OpenAI

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in ("a", "b")},
                "required": ["a", "b"],
            },
        },
    }
]


def main(base_url: str) -> None:
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id

    stream = client.completions.create(model=model, prompt="def load_json(path):", max_tokens=32, seed=7, stream=True)
    for chunk in stream:
        print(chunk.choices[0].text, end="", flush=True)
    print()

    # fields that OpenAI's client does not know go into extra_body
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Anna has 14 apples and buys 9 more. How many apples does she have?"}],
        temperature=0,
        max_tokens=60,
        tools=TOOLS,
        tool_choice="required",
        extra_body={"return_token_origins": True},
    )
    (call,) = answer.choices[0].message.tool_calls[:1]
    print(f"{call.function.name}({call.function.arguments})")
    print(f"acceptance length {answer.usage.speculation['mean_acceptance_length']:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
