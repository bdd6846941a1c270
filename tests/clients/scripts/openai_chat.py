"""openai, asynchronous: chat, a stream, a tool call whole and streamed, and JSON."""

import asyncio

from openai import AsyncOpenAI
from talk import read_task, tell

task = read_task()
MESSAGES = [{"role": "user", "content": task.question}]
ASKED = {"model": task.model, "messages": MESSAGES, "temperature": 0, "max_tokens": task.max_tokens}
TOOL = {"type": "function", "function": task.tool | {"strict": True}}  # its streams parse strict tools only
TOOLS = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": task.schema, "strict": True}}


async def main() -> None:
    async with AsyncOpenAI(base_url=task.url, api_key="none", max_retries=0) as client:
        create = client.chat.completions.create
        whole = await create(**ASKED)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in await create(**ASKED, stream=True)]
        called = await create(**ASKED, **TOOLS)
        (call,) = called.choices[0].message.tool_calls
        async with client.chat.completions.stream(**ASKED, **TOOLS) as stream:
            streamed = (await stream.get_final_completion()).choices[0].message.tool_calls[0]
        shaped = await create(**ASKED, response_format=FORMAT)
        result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
        later = await create(**ASKED | {"messages": [*MESSAGES, called.choices[0].message.model_dump(), result]})
        response = await client.responses.create(
            model=task.model, input=task.question, temperature=0, max_output_tokens=task.max_tokens
        )
    tell(
        text_over_responses=response.output_text,
        text=whole.choices[0].message.content,
        pieces=pieces,
        call=[call.function.name, call.function.arguments],
        streamed_call=[streamed.function.name, streamed.function.arguments],
        shaped=shaped.choices[0].message.content,
        later=later.choices[0].message.content,
    )


asyncio.run(main())
