"""/v1/messages, driven by Anthropic's own client: whole and streamed, tools, continued answers, counts, refusals."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, RawMessageStreamEvent
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from tests.support.http_calls import post
from tests.support.server_under_test import ServerUnderTest

QUESTION = "Anna has 14 apples and buys 9 more. How many apples does she have?"
CHAT: list[Any] = [{"role": "user", "content": QUESTION}]
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
ADD: dict[str, Any] = {"name": "add", "description": "Adds.", "input_schema": SCHEMA}
ASKED: dict[str, Any] = {"model": "zoo/tiny", "messages": CHAT, "max_tokens": 16, "extra_body": {"temperature": 0}}

LONG = {"max_tokens": 60}


@pytest.fixture(scope="module")
def client(server: ServerUnderTest) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url.rstrip("/"), api_key="none", max_retries=0, timeout=60) as made:
        yield made


def checked(answer: Any) -> Any:
    """Validated, for the client itself believes whatever it gets."""
    Message.model_validate_json(answer.model_dump_json(), strict=True)
    return answer


def streamed(client: Anthropic, **asked: Any) -> list[Any]:
    """The events, each valid, framed by the right ones."""
    events = list(client.messages.create(**asked, stream=True))
    for event in events:
        EVENT.validate_json(event.model_dump_json(), strict=True)
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    open_block = None
    for event in events:
        if event.type == "content_block_start":
            assert open_block is None
            open_block = event.index
        elif event.type == "content_block_delta":
            assert event.index == open_block
        elif event.type == "content_block_stop":
            assert event.index == open_block
            open_block = None
    assert open_block is None
    return events


def said(server: ServerUnderTest, **fields: Any) -> dict[str, Any]:
    """The answer of a chat completion."""
    body = {"messages": CHAT, "temperature": 0, "max_tokens": 16} | fields
    status, answer, _ = post(server, "v1/chat/completions", body)
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def content_of(answer: dict[str, Any]) -> Any:
    return answer["choices"][0]["message"]["content"]


def test_a_message_has_the_text_of_a_chat(client: Anthropic, server: ServerUnderTest) -> None:
    answer = checked(client.messages.create(**ASKED, system="Be brief."))
    expected = said(server, messages=[{"role": "system", "content": "Be brief."}, *CHAT])
    (block,) = answer.content
    assert block.text == content_of(expected) != ""
    usage = answer.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == expected["usage"]["prompt_tokens"]
    assert usage.output_tokens == expected["usage"]["completion_tokens"]
    reason = {"stop": "end_turn", "length": "max_tokens"}[expected["choices"][0]["finish_reason"]]
    assert answer.stop_reason == reason and answer.stop_sequence is None


def test_a_stream_is_the_whole_answer_in_pieces(client: Anthropic) -> None:
    for extra in ({"temperature": 0}, {"temperature": 1, "seed": 7}):
        asked = ASKED | {"extra_body": extra}
        whole = checked(client.messages.create(**asked))
        events = streamed(client, **asked)
        texts = [event.delta.text for event in events if event.type == "content_block_delta"]
        assert len(texts) > 2 and "".join(texts) == whole.content[0].text
        assert events[-2].delta.stop_reason == whole.stop_reason
        assert events[-2].usage.output_tokens == whole.usage.output_tokens
        with client.messages.stream(**asked) as stream:
            final = checked(stream.get_final_message())
        assert final.content[0].text == whole.content[0].text and final.usage.output_tokens == whole.usage.output_tokens
        total = final.usage.input_tokens + final.usage.cache_read_input_tokens
        assert total == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_a_stop_sequence_is_named(client: Anthropic) -> None:
    whole = client.messages.create(**ASKED).content[0].text
    stop = whole[5:8]
    answer = checked(client.messages.create(**ASKED, stop_sequences=[stop]))
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    text = answer.content[0].text if answer.content else ""
    assert text == whole[: whole.index(stop)]
    assert streamed(client, **ASKED, stop_sequences=[stop])[-2].delta.stop_sequence == stop


def test_a_required_call_goes_through_a_whole_turn(client: Anthropic, server: ServerUnderTest) -> None:
    asked = ASKED | LONG | {"tools": [ADD], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    answer = checked(client.messages.create(**asked))
    (call,) = answer.content
    assert call.type == "tool_use" and call.name == "add" and answer.stop_reason == "tool_use"
    Draft202012Validator(SCHEMA).validate(call.input)
    events = streamed(client, **asked)
    told = "".join(event.delta.partial_json for event in events if event.type == "content_block_delta")
    assert json.loads(told) == call.input and events[-2].delta.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "3"}]}
    turns = [
        *CHAT,
        {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    later = checked(client.messages.create(**ASKED | {"messages": turns}))
    function = {"name": "add", "arguments": json.dumps(call.input)}
    expected = [
        *CHAT,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.id, "content": "3"},
        {"role": "user", "content": "So?"},
    ]
    assert later.content[0].text == content_of(said(server, messages=expected))


@pytest.mark.slow
def test_one_tool_is_called(client: Anthropic) -> None:
    tools = [ADD | {"name": "other"}, ADD]
    (call,) = checked(
        client.messages.create(**ASKED | LONG, tools=tools, tool_choice={"type": "tool", "name": "add"})
    ).content
    assert call.name == "add"


@pytest.mark.slow
def test_an_answer_is_continued(client: Anthropic, server: ServerUnderTest) -> None:
    begun = [*CHAT, {"role": "assistant", "content": "She has"}]
    answer = checked(client.messages.create(**ASKED | {"messages": begun}))
    expected = said(server, messages=begun, continue_final_message=True, add_generation_prompt=False)
    assert answer.content[0].text == content_of(expected)


@pytest.mark.slow
def test_a_schema_makes_json(client: Anthropic) -> None:
    answer = checked(
        client.messages.create(**ASKED | LONG, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    )
    Draft202012Validator(SCHEMA).validate(json.loads(answer.content[0].text))


def test_tokens_are_counted_as_they_are_used(client: Anthropic) -> None:
    for more in ({}, {"system": "Be brief."}, {"tools": [ADD], "tool_choice": {"type": "tool", "name": "add"}}):
        counted = client.messages.count_tokens(model="zoo/tiny", messages=CHAT, **more).input_tokens
        usage = client.messages.create(**ASKED, **more).usage
        assert counted == usage.input_tokens + usage.cache_read_input_tokens > 10


@pytest.mark.slow
def test_what_changes_nothing_is_taken(client: Anthropic) -> None:
    plain = client.messages.create(**ASKED).content[0].text
    cached = {"type": "ephemeral"}
    same = client.messages.create(
        **ASKED
        | {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION, "cache_control": cached}]}]},
        metadata={"user_id": "me"},
        service_tier="auto",
        thinking={"type": "disabled"},
        tools=[],
        cache_control=cached,
        extra_headers={"anthropic-beta": "something-2026-01-01"},
    )
    assert same.content[0].text == plain


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "messages is required"),
    ({"messages": CHAT}, "max_tokens is required"),
    ({"messages": CHAT, "max_tokens": 3, "response_format": 1}, "Use output_config.format"),
    ({"messages": CHAT, "max_tokens": 3, "stop": "a"}, "Use stop_sequences"),
    ({"messages": CHAT, "max_tokens": 3, "mcp_servers": [{"name": "x"}]}, "mcp_servers is not offered"),
    ({"messages": CHAT, "max_tokens": 3, "tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
    ({"messages": CHAT, "max_tokens": 3, "tools": [ADD]}, "--tool-call-parser"),
    ({"messages": CHAT, "max_tokens": 3, "tool_choice": {"type": "any"}}, "there are no tools"),
    ({"messages": CHAT, "max_tokens": 3, "thinking": {"type": "enabled", "budget_tokens": 1024}}, "--reasoning-parser"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}], "max_tokens": 3}, "image"),
    ({"messages": CHAT, "max_tokens": 3, "max_tokns": 3}, "Did you mean max_tokens?"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED, ids=lambda value: json.dumps(value)[:60])
def test_what_is_not_offered_is_refused_by_name(server: ServerUnderTest, body: dict[str, Any], says: str) -> None:
    status, answer, _ = post(server, "v1/messages", body)
    assert status == 400 and answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error" and says in answer["error"]["message"], answer


def test_errors_are_those_of_the_client(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        client.messages.create(**ASKED | {"model": "other"})
    with pytest.raises(anthropic.BadRequestError, match="max_model_len"):
        client.messages.create(**ASKED | {"messages": [{"role": "user", "content": "a " * 3000}]})
    with pytest.raises(anthropic.BadRequestError, match="tool_result"):
        use = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
        client.messages.create(**ASKED | {"messages": [*CHAT, {"role": "assistant", "content": [use]}]})
