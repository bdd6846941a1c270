"""litellm: chat, a stream, a tool call whole and streamed, JSON, and its own messages sent back as they are.

Then text, a stream and a tool call over /v1/messages, and text over /v1/responses.
"""

import litellm
from talk import read_task, tell

task = read_task()
litellm.telemetry = False
MESSAGES = [{"role": "user", "content": task.question}]
ASKED = {
    "model": f"openai/{task.model}",
    "api_base": task.url,
    "api_key": "none",
    "messages": MESSAGES,
    "temperature": 0,
    "max_tokens": task.max_tokens,
}
TOOLS = {
    "tools": [{"type": "function", "function": task.tool}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": task.schema, "strict": True}}

whole = litellm.completion(**ASKED)
pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ASKED, stream=True)]
called = litellm.completion(**ASKED, **TOOLS)
(call,) = called.choices[0].message.tool_calls
streamed = litellm.stream_chunk_builder(list(litellm.completion(**ASKED, **TOOLS, stream=True)))
(streamed_call,) = streamed.choices[0].message.tool_calls
shaped = litellm.completion(**ASKED, response_format=FORMAT)
result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
later = litellm.completion(**ASKED | {"messages": [*MESSAGES, called.choices[0].message.model_dump(), result]})
CLAUDE = ASKED | {"model": f"anthropic/{task.model}", "api_base": task.url.removesuffix("/v1")}
(message_call,) = litellm.completion(**CLAUDE, **TOOLS).choices[0].message.tool_calls
response = litellm.responses(
    model=f"openai/{task.model}",
    api_base=task.url,
    api_key="none",
    input=task.question,
    temperature=0,
    max_output_tokens=task.max_tokens,
)
tell(
    text_over_messages=litellm.completion(**CLAUDE).choices[0].message.content,
    pieces_over_messages=[chunk.choices[0].delta.content or "" for chunk in litellm.completion(**CLAUDE, stream=True)],
    call_over_messages=[message_call.function.name, message_call.function.arguments],
    text_over_responses="".join(part.text for item in response.output for part in item.content),
    text=whole.choices[0].message.content,
    pieces=pieces,
    call=[call.function.name, call.function.arguments],
    streamed_call=[streamed_call.function.name, streamed_call.function.arguments],
    shaped=shaped.choices[0].message.content,
    later=later.choices[0].message.content,
    num_tokens=whole.usage.completion_tokens,
)
