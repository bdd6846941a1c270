"""Tool calls and reasoning over HTTP: a grammar makes the model write a text, read whole and as a stream."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outrider.server import answers
from tests.server.tool_formats import FORMATS, TOOLS
from tests.support.http_calls import events, post
from tests.support.server_under_test import ServerUnderTest, serve

pytestmark = pytest.mark.slow
USER = {"role": "user", "content": "hi"}
TEMPLATE = (
    "{% if tools %}{{ tools|tojson }}\n{% endif %}{% for m in messages %}"
    "{% for call in m.tool_calls or [] %}{% if call.id|length != 9 %}{{ raise_exception('9 characters') }}{% endif %}"
    "{% endfor %}{{ m.content }}{{ m.reasoning_content }}\n{% endfor %}"
)
OFFERED = [
    {"type": "function", "function": {"name": name, "parameters": schema or {"type": "object"}}}
    for name, schema in TOOLS.items()
]


def serving(parser: str, reasoning: str | None, folder: Path) -> Iterator[ServerUnderTest]:
    """A server with these parsers and the template."""
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    options = ["--tool-call-parser", parser, "--chat-template", str(template)]
    with serve("zoo/tiny", *options, *(["--reasoning-parser", reasoning] if reasoning is not None else [])) as server:
        yield server


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    yield from serving("hermes", "qwen3", tmp_path_factory.mktemp("hermes"))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    yield from serving("mistral", None, tmp_path_factory.mktemp("mistral"))


def written(server: ServerUnderTest, text: str, **fields: Any) -> tuple[dict[str, Any], list[Any]]:
    """The choice of a whole answer, and the chunks of a stream, when the model writes `text`."""
    body = {"messages": [USER], "tools": OFFERED, "structured_outputs": {"choice": [text]}, "max_tokens": 1900}
    status, answer, _ = post(server, "v1/chat/completions", body | {"temperature": 0} | fields)
    assert status == 200, answer
    answers.ChatAnswer.model_validate(answer, strict=True)
    status, stream, _ = post(server, "v1/chat/completions", body | {"temperature": 0, "stream": True} | fields)
    assert status == 200, stream
    (choice,) = answer["choices"]
    return choice, events(stream)


def added_up(chunks: list[Any]) -> tuple[str, str, list[list[str]], str]:
    """Content, reasoning, [name, arguments] of each call, and finish reason of a stream."""
    content = reasoning = ""
    calls: list[list[str]] = []
    ids: set[str] = set()
    reason = None
    for chunk in chunks:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        content += delta.get("content") or ""
        reasoning += delta.get("reasoning") or ""
        assert delta.get("reasoning") == delta.get("reasoning_content")
        for call in delta.get("tool_calls", []):
            if call["index"] == len(calls):
                calls.append([call["function"]["name"], ""])
                ids.add(call["id"])
            else:
                assert call["index"] == len(calls) - 1 and set(call) == {"index", "function"}
            calls[-1][1] += call["function"]["arguments"]
        reason = choice["finish_reason"]
    assert len(ids) == len(calls) and reason is not None
    return content, reasoning, calls, reason


def agree(choice: dict[str, Any], chunks: list[Any]) -> tuple[str, str, list[list[str]], str]:
    """Content, reasoning, calls and finish reason, which are the same whole and streamed."""
    message = choice["message"]
    calls = [[c["function"]["name"], c["function"]["arguments"]] for c in message.get("tool_calls", [])]
    said = message["content"] or "", message.get("reasoning") or "", calls, choice["finish_reason"]
    assert added_up(chunks) == said
    return said


CALLS = {
    "half of a surrogate pair": '{"a": "\\ud83d"}',
    "brackets": '{"a": ' + "[" * 500 + "]" * 500 + "}",
    "a large number": '{"a": 1e999}',
    "a long number": '{"a": 12345678901234567890.5}',
    "zeros": '{"a": 1.10}',
    "an exponent": '{"a": 1E2}',
    "a key twice": '{"a": 1,"a":2}',
    "marks": '{"a": "</tool_call><tool_call>"}',
}


@pytest.mark.parametrize("arguments", CALLS.values(), ids=list(CALLS))
def test_arguments_are_answered_as_the_model_wrote_them(hermes: ServerUnderTest, arguments: str) -> None:
    call = f'<tool_call>{{"name":"add","arguments":{arguments}}}</tool_call>'
    assert agree(*written(hermes, call)) == ("", "", [["add", arguments]], "tool_calls")


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"add","arguments":{"a":NaN}}</tool_call>',
        '<tool_call>{"name":"Harbour","arguments":{"a":1}}</tool_call>',
        '<tool_call>{"name":"now"}</tool_call>',
        '{"name": "now", "depth": 12}',
    ],
)
def test_what_is_not_a_call_is_answered_as_text(hermes: ServerUnderTest, text: str) -> None:
    assert agree(*written(hermes, text)) == (text, "", [], "stop")


def test_a_stream_gives_the_name_and_then_arguments_as_they_come(hermes: ServerUnderTest) -> None:
    call = FORMATS["hermes"][0].call("add", [("text", json.dumps("one two three four five"))])
    _, chunks = written(hermes, call)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    first, *rest = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert first["function"] == {"name": "add", "arguments": ""} and re.fullmatch("call_[0-9a-f]{24}", first["id"])
    assert len(rest) > 3 and all(call["function"]["arguments"] for call in rest)


def test_a_call_that_is_cut_by_max_tokens_is_cut_in_both(hermes: ServerUnderTest) -> None:
    call = FORMATS["hermes"][0].call("add", [("text", json.dumps("one two three four five " * 9))])
    content, _, ((name, arguments),), reason = agree(*written(hermes, call, max_tokens=60))
    assert (content, name, reason) == ("", "add", "length") and call.find(arguments) > 0 and '"one' in arguments


def test_reasoning_is_separated_from_content_and_calls(hermes: ServerUnderTest) -> None:
    call = FORMATS["hermes"][0].call("now", [])
    text = f"<think>\nI think.\n</think>\n\nOne moment. {call}"
    assert agree(*written(hermes, text)) == ("One moment. ", "I think.", [["now", "{}"]], "tool_calls")
    choice, chunks = written(hermes, "<think>I think.</think>Yes.", tools=None)
    assert agree(choice, chunks) == ("Yes.", "I think.", [], "stop")
    assert choice["message"]["reasoning"] == choice["message"]["reasoning_content"] == "I think."
    left_out = written(hermes, "<think>I think.</think>Yes.", include_reasoning=False)
    assert agree(*left_out) == ("Yes.", "", [], "stop") and left_out[0]["message"]["reasoning"] is None
    status, answer, _ = post(
        hermes, "v1/chat/completions", {"messages": [USER, choice["message"], USER], "max_tokens": 1}
    )
    assert status == 200, answer


def test_an_answer_with_calls_can_be_sent_back(mistral: ServerUnderTest) -> None:
    for text in ('[TOOL_CALLS][{"name":"add","arguments":{"a":1}}]', '[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{"a":1}'):
        choice, chunks = written(mistral, text)
        assert agree(choice, chunks) == ("", "", [["add", '{"a":1}']], "tool_calls")
        (call,) = choice["message"]["tool_calls"]
        assert re.fullmatch("[a-zA-Z0-9]{9}", call["id"]) and ("abc123def" in text) == (call["id"] == "abc123def")
        back = [USER, choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "ok"}]
        status, answer, _ = post(mistral, "v1/chat/completions", {"messages": back, "tools": OFFERED, "max_tokens": 1})
        assert status == 200, answer


@pytest.mark.parametrize("tool_choice", ["required", {"type": "function", "function": {"name": "now"}}])
def test_forced_calls_have_the_parsers_ids_and_are_streamed(mistral: ServerUnderTest, tool_choice: Any) -> None:
    body = {"structured_outputs": None, "tool_choice": tool_choice, "max_tokens": 60, "seed": 1}
    choice, chunks = written(mistral, "", tools=OFFERED[1:], parallel_tool_calls=False, **body)
    _, _, calls, _ = agree(choice, chunks)
    assert [name for name, _ in calls] == ["now"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", choice["message"]["tool_calls"][0]["id"])
