"""Asks the model word problems under its chat template, then goes on with the conversation.

Run it from the repository: python examples/chat.py
"""

from pathlib import Path

from outrider import LLM, SamplingParams

ZOO = Path(__file__).parents[1] / "zoo"
QUESTIONS = [
    "Anna has 14 apples and buys 9 more. She gives 5 to a friend. How many apples does she have?",
    "There are 3 boxes with 12 candles in each box. How many candles are there?",
]


def main() -> None:
    drafter = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    llm = LLM(str(ZOO / "tiny"), speculative_config=drafter)
    params = SamplingParams(temperature=0.0, max_tokens=120)

    # several conversations run together in one batch
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    for conversation, output in zip(conversations, llm.chat(conversations, params), strict=True):
        answer = output.outputs[0].text
        print(f"user:      {conversation[0]['content']}\nassistant: {answer}\n")
        conversation.append({"role": "assistant", "content": answer})

    # the next turn finds the earlier ones in the prefix cache
    first = [
        *conversations[0],
        {"role": "user", "content": "Lena has 31 coins. She gives 12 to Paul. How many coins does Lena have left?"},
    ]
    (output,) = llm.chat(first, params)
    print(f"user:      {first[-1]['content']}\nassistant: {output.outputs[0].text}")
    print(f"--- {output.num_cached_tokens} of {len(output.prompt_token_ids)} prompt tokens came from the prefix cache")


if __name__ == "__main__":
    main()
