"""pydantic-ai: an agent's text and stream, a typed result by tool call and by schema, and a whole turn with a tool."""

import asyncio
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from talk import read_task, tell

task = read_task()


class Answer(BaseModel):
    """The schema of the task as a class."""

    colour: Literal["red", "green"]
    likes_code: bool


async def main() -> None:
    model = OpenAIChatModel(task.model, provider=OpenAIProvider(base_url=task.url, api_key="none"))
    settings = {"temperature": 0, "max_tokens": task.max_tokens}
    agent = Agent(model, model_settings=settings)
    whole = await agent.run(task.question)
    async with agent.run_stream(task.question) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    by_tool = await Agent(model, model_settings=settings, output_type=ToolOutput(Answer)).run(task.question)
    by_schema = await Agent(model, model_settings=settings, output_type=NativeOutput(Answer)).run(task.question)
    tell(
        text=whole.output,
        pieces=pieces,
        shaped_by_mode={"tool": [by_tool.output.model_dump_json()], "schema": [by_schema.output.model_dump_json()]},
        num_tokens=whole.usage.output_tokens,
    )


asyncio.run(main())
