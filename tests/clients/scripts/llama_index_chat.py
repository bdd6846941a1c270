"""llama-index with OpenAILike: chat, a stream, a tool call whole and streamed, and JSON."""

import json

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.llms.openai_like import OpenAILike
from pydantic import create_model
from talk import read_task, tell

task = read_task()
llm = OpenAILike(
    model=task.model,
    api_base=task.url,
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=2048,
    temperature=0,
    max_tokens=task.max_tokens,
    max_retries=0,
)
asked = [ChatMessage(role="user", content=task.question)]


class Parameters(ToolMetadata):
    """A tool's description with a JSON schema as it is."""

    def get_parameters_dict(self):
        return task.tool["parameters"]


tool = FunctionTool(
    lambda **given: given,
    metadata=Parameters(name=task.tool["name"], description=task.tool["description"], fn_schema=create_model("Any")),
)
whole = llm.chat(asked)
pieces = [chunk.delta for chunk in llm.stream_chat(asked)]
tools = {"tools": [tool], "chat_history": asked, "tool_required": True}
(call,) = llm.get_tool_calls_from_response(llm.chat_with_tools(**tools))
*_, last = llm.stream_chat_with_tools(**tools)
(streamed,) = llm.get_tool_calls_from_response(last)
form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": task.schema, "strict": True}}
shaped = llm.chat(asked, response_format=form)
tell(
    text=whole.message.content,
    pieces=pieces,
    call=[call.tool_name, json.dumps(call.tool_kwargs)],
    streamed_call=[streamed.tool_name, json.dumps(streamed.tool_kwargs)],
    shaped=shaped.message.content,
)
