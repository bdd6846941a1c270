"""langchain-openai: chat, a stream, a tool call whole and streamed, structured output, and the turn after a call.

Then text, a stream and a tool call over /v1/responses.
"""

import json

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from talk import read_task, tell

task = read_task()
llm = ChatOpenAI(base_url=task.url, api_key="none", model=task.model, temperature=0, max_tokens=task.max_tokens)
asked = [HumanMessage(task.question)]
whole = llm.invoke(asked)
pieces = [chunk.content for chunk in llm.stream(asked)]
bound = llm.bind_tools([{"type": "function", "function": task.tool}], tool_choice="required", parallel_tool_calls=False)
called = bound.invoke(asked)
(call,) = called.tool_calls
chunks = list(bound.stream(asked))
total = chunks[0]
for chunk in chunks[1:]:
    total += chunk
(streamed,) = total.tool_calls
shaped = llm.with_structured_output({"title": "answer", **task.schema}, method="json_schema").invoke(asked)
later = llm.invoke([*asked, called, ToolMessage("3", tool_call_id=call["id"])])
over_responses = ChatOpenAI(
    base_url=task.url,
    api_key="none",
    model=task.model,
    temperature=0,
    max_tokens=task.max_tokens,
    use_responses_api=True,
)
(response_call,) = (
    over_responses.bind_tools(
        [{"type": "function", "function": task.tool}], tool_choice="required", parallel_tool_calls=False
    )
    .invoke(asked)
    .tool_calls
)
tell(
    text_over_responses=over_responses.invoke(asked).text,
    pieces_over_responses=[chunk.text for chunk in over_responses.stream(asked)],
    call_over_responses=[response_call["name"], json.dumps(response_call["args"])],
    text=whole.content,
    pieces=pieces,
    call=[call["name"], json.dumps(call["args"])],
    streamed_call=[streamed["name"], json.dumps(streamed["args"])],
    shaped=json.dumps(shaped),
    later=later.content,
    num_tokens=whole.usage_metadata["output_tokens"],
)
