"""pydantic-ai: an agent's text and stream, and a typed result by tool call and by schema; then over /v1/responses."""

import asyncio
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
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
    responses = OpenAIResponsesModel(task.model, provider=OpenAIProvider(base_url=task.url, api_key="none"))
    over = await Agent(responses, model_settings=settings).run(task.question)
    over_tool = await Agent(responses, model_settings=settings, output_type=ToolOutput(Answer)).run(task.question)
    tell(
        text_over_responses=over.output,
        text=whole.output,
        pieces=pieces,
        shaped_by_mode={"tool": [by_tool.output.model_dump_json()], "schema": [by_schema.output.model_dump_json()]},
        shaped_by_mode_over_responses={"tool": [over_tool.output.model_dump_json()]},
        num_tokens=whole.usage.output_tokens,
    )


asyncio.run(main())
