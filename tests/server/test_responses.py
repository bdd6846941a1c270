"""/v1/responses, driven by OpenAI's own client: whole and streamed, tools, formats, stored responses, refusals."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from jsonschema import Draft202012Validator
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.support.http_calls import get, post
from tests.support.server_under_test import ServerUnderTest

QUESTION = "Anna has 14 apples and buys 9 more. How many apples does she have?"
CHAT = [{"role": "user", "content": QUESTION}]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
ADD: dict[str, Any] = {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": True}
ASKED: dict[str, Any] = {"model": "zoo/tiny", "input": QUESTION, "temperature": 0, "max_output_tokens": 16}
LONG = {"max_output_tokens": 60}


@pytest.fixture(scope="module")
def client(server: ServerUnderTest) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def checked(answer: Any) -> Any:
    """Validated, for the client itself believes whatever it gets."""
    body = json.loads(answer.model_dump_json())
    body["tools"] = [{"strict": True} | tool for tool in body["tools"]]
    Response.model_validate_json(json.dumps(body), strict=True)
    return answer


def streamed(client: OpenAI, **asked: Any) -> list[Any]:
    """The events, each valid, numbered from 0 without a gap, and framed by the right ones."""
    events = list(client.responses.create(**asked, stream=True))
    for event in events:
        EVENT.validate_json(event.model_dump_json(), strict=True)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0].response.status == "in_progress" and events[0].response.output == []
    return events


def said(server: ServerUnderTest, **fields: Any) -> dict[str, Any]:
    """The message of a chat completion."""
    body = {"messages": CHAT, "temperature": 0, "max_tokens": 16} | fields
    status, answer, _ = post(server, "v1/chat/completions", body)
    assert status == 200, answer
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def without_ids(output: list[Any]) -> list[dict[str, Any]]:
    return [item.model_dump(exclude={"id", "call_id"}) for item in output]


def test_a_response_has_the_text_of_a_chat(client: OpenAI, server: ServerUnderTest) -> None:
    answer = checked(client.responses.create(**ASKED, metadata={"a": "b"}, instructions="Be brief."))
    system = {"role": "system", "content": "Be brief."}
    assert answer.output_text == said(server, messages=[system, *CHAT])["content"] != ""
    assert answer.metadata == {"a": "b"} and answer.instructions == "Be brief." and answer.temperature == 0
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.status in ("completed", "incomplete")


@pytest.mark.parametrize("temperature", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stream_is_the_whole_answer_in_pieces(client: OpenAI, temperature: float) -> None:
    asked = ASKED | {"temperature": temperature, "extra_body": {"seed": 7}}
    whole = checked(client.responses.create(**asked))
    events = streamed(client, **asked)
    last = events[-1]
    assert last.type == f"response.{whole.status}"
    checked(last.response)
    assert without_ids(last.response.output) == without_ids(whole.output)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2 and "".join(deltas) == whole.output_text
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        last.type,
    ]
    assert events[-2].item == last.response.output[0]


@pytest.mark.slow
def test_an_answer_that_is_cut_is_incomplete(client: OpenAI) -> None:
    answer = checked(client.responses.create(**ASKED | {"max_output_tokens": 3}))
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete" and answer.usage.output_tokens == 3


def test_a_required_call_goes_through_a_whole_turn(client: OpenAI, server: ServerUnderTest) -> None:
    asked = ASKED | LONG | {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False}
    answer = checked(client.responses.create(**asked))
    (call,) = answer.output
    assert call.type == "function_call" and call.name == "add"
    Draft202012Validator(PARAMETERS).validate(json.loads(call.arguments))
    events = streamed(client, **asked)
    assert without_ids(events[-1].response.output) == without_ids(answer.output)
    told = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(told) == call.arguments
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done.arguments == call.arguments
    # the result goes back with the items, or after the stored response: the model sees the same
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    later = {"model": "zoo/tiny", "temperature": 0, "max_output_tokens": 8}
    items = [*CHAT, *[item.model_dump() for item in answer.output], result]
    by_items = checked(client.responses.create(**later, input=items))
    by_id = checked(client.responses.create(**later, input=[result], previous_response_id=answer.id))
    function = {"name": "add", "arguments": call.arguments}
    turns = [
        {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.call_id, "content": "3"},
    ]
    expected = said(server, messages=[*CHAT, *turns], max_tokens=8)["content"]
    assert by_items.output_text == by_id.output_text == expected
    assert by_items.usage.input_tokens == by_id.usage.input_tokens


@pytest.mark.slow
def test_a_named_function_is_called(client: OpenAI) -> None:
    other = ADD | {"name": "other"}
    choice: Any = {"type": "function", "name": "add"}
    (call,) = checked(client.responses.create(**ASKED | LONG, tools=[other, ADD], tool_choice=choice)).output
    assert call.name == "add" and set(json.loads(call.arguments)) == {"a", "b"}


def test_a_text_format_makes_json(client: OpenAI) -> None:
    class Person(BaseModel):
        colour: Literal["red", "green"]
        likes_code: bool

    parsed = client.responses.parse(**ASKED | LONG, text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    free = client.responses.create(**ASKED | {"max_output_tokens": 100}, text={"format": {"type": "json_object"}})
    if free.status == "completed":
        assert isinstance(json.loads(free.output_text), dict)
    assert client.responses.create(**ASKED, text={"format": {"type": "text"}}).output_text


@pytest.mark.slow
def test_log_probabilities_are_those_of_a_chat(client: OpenAI, server: ServerUnderTest) -> None:
    asked = ASKED | {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    body = {"messages": CHAT, "temperature": 0, "max_tokens": 16, "logprobs": True, "top_logprobs": 2}
    expected = post(server, "v1/chat/completions", body)[1]["choices"][0]["logprobs"]["content"]
    answer = checked(client.responses.create(**asked))
    assert [entry.model_dump() for entry in answer.output[0].content[0].logprobs] == expected
    events = streamed(client, **asked)
    assert without_ids(events[-1].response.output) == without_ids(answer.output)
    told = [entry.model_dump() for event in events if event.type.endswith("text.delta") for entry in event.logprobs]
    assert told == expected[: len(told)] and len(told) >= len(expected) - 1  # the end of text adds none


def test_a_stored_response_is_found_continued_and_deleted(client: OpenAI, server: ServerUnderTest) -> None:
    first = client.responses.create(**ASKED, instructions="Be brief.")
    assert checked(client.responses.retrieve(first.id)) == first
    more = ASKED | {"input": "Why?"}
    second = client.responses.create(**more, previous_response_id=first.id)
    turns = [*CHAT, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "Why?"}]
    assert second.output_text == said(server, messages=turns)["content"]  # without the first one's instructions
    third = client.responses.create(**more, previous_response_id=second.id, store=False)
    assert third.usage.input_tokens > second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)
    for response_id in (first.id, third.id, "resp_0"):
        with pytest.raises(openai.NotFoundError, match="is not stored"):
            client.responses.retrieve(response_id)
        with pytest.raises(openai.NotFoundError, match="is not stored"):
            client.responses.delete(response_id)
        with pytest.raises(openai.BadRequestError, match="is not stored") as missing:
            client.responses.create(**more, previous_response_id=response_id)
        assert missing.value.code == "previous_response_not_found"
    # its conversation lives on in the one that continues it
    again = client.responses.create(**more, previous_response_id=second.id, store=False)
    assert again.output_text == third.output_text
    by_reference = [*CHAT, {"type": "item_reference", "id": second.output[0].id}, {"role": "user", "content": "Why?"}]
    told = [*CHAT, {"role": "assistant", "content": second.output_text}, {"role": "user", "content": "Why?"}]
    assert (
        client.responses.create(**ASKED | {"input": by_reference}).output_text == said(server, messages=told)["content"]
    )


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "required"),
    ({"input": []}, "input", "at least 1 item"),
    ({"input": "a", "background": True}, "background", "background=true is refused"),
    ({"input": "a", "background": 0}, "background", "background=0 is refused"),
    ({"input": "a", "conversation": "c"}, "conversation", "Use previous_response_id"),
    ({"input": "a", "max_tokens": 3}, "max_tokens", "Use max_output_tokens"),
    ({"input": "a", "response_format": {"type": "text"}}, "response_format", "Use text.format"),
    ({"input": "a", "messages": CHAT}, "messages", "/v1/chat/completions"),
    ({"input": "a", "truncation": "auto"}, "truncation", "truncation"),
    ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"input": "a", "tool_choice": "required"}, "tool_choice", "there are no tools"),
    ({"input": "a", "tools": [ADD]}, "tool_choice", "--tool-call-parser"),
    ({"input": "a", "top_logprobs": 2}, "top_logprobs", "include"),
    ({"input": "a", "include": ["file_search_call.results"]}, "include[0]", "file_search_call.results"),
    ({"input": [{"type": "computer_call"}]}, "input[0]", "not offered"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input", "input_image"),
    ({"input": [{"type": "item_reference", "id": "msg_0"}]}, "input", "msg_0"),
    ({"input": "a", "text": {"format": {"type": "grammar"}}}, "text.format", "grammar"),
    ({"input": "a", "stream_options": {"include_obfuscation": True}}, "stream_options", "include_obfuscation"),
    ({"input": "a", "reasoning": {"effort": "low"}}, "reasoning.effort", "does not use reasoning_effort"),
    ({"input": "a", "metadata": {"a": 1}}, "metadata.a", "metadata.a=1"),
    ({"input": "a", "temperture": 1}, "temperture", "Did you mean temperature?"),
]


@pytest.mark.parametrize(("body", "param", "says"), REFUSED, ids=lambda value: json.dumps(value)[:50])
def test_what_is_not_offered_is_refused_by_name(
    server: ServerUnderTest, body: dict[str, Any], param: str, says: str
) -> None:
    status, answer, _ = post(server, "v1/responses", body)
    assert status in (400, 404), answer
    error = answer["error"]
    assert error["param"].startswith(param) and says in error["message"], error


@pytest.mark.slow
def test_what_changes_nothing_is_taken(client: OpenAI, server: ServerUnderTest) -> None:
    plain = client.responses.create(**ASKED)
    nothing: dict[str, Any] = {
        "background": False,
        "include": ["reasoning.encrypted_content"],
        "metadata": {},
        "parallel_tool_calls": True,
        "prompt_cache_key": "k",
        "reasoning": {"summary": "auto"},
        "safety_identifier": "u",
        "service_tier": "auto",
        "store": False,
        "stream_options": {"include_obfuscation": False},
        "text": {"verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "user": "me",
    }
    assert client.responses.create(**ASKED, **nothing).output_text == plain.output_text


def test_a_stored_response_is_not_streamed(client: OpenAI, server: ServerUnderTest) -> None:
    made = client.responses.create(**ASKED)
    status, answer, _ = get(server, f"v1/responses/{made.id}?stream=true")
    assert status == 400 and answer["error"]["param"] == "stream"
