"""Parts of answers at /v1/responses and /v1/messages: reasoning, text and calls, whole and cut at every character.

No server: the readers of the real parsers, and the two forms.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from outrider.server.answer_reader import AnswerReader
from outrider.server.blank_text import BlankText
from outrider.server.messages.output import Content
from outrider.server.responses.items import ITEM_TYPES, chat_messages
from outrider.server.responses.output import Output
from outrider.server.responses.store import ResponseStore
from outrider.server.tools import find_parser, find_reasoning_parser

TOOLS = {"look": {"type": "object"}, "ring": {"type": "object"}}
CALL = (
    '<tool_call>\n{"name": "look", "arguments": {"at": 12345678901234567890.5, "at": [1.10, "\\ud83d"]}}\n</tool_call>'
)
ARGUMENTS = '{"at": 12345678901234567890.5, "at": [1.10, "\\ud83d"]}'
ALL = f"<think>\nHm.\n</think>\n\nLet me see.\n{CALL}\n{CALL.replace('look', 'ring')}\n"


def reader_of() -> AnswerReader:
    return AnswerReader(reasoning=find_reasoning_parser("qwen3")(TOOLS), tools=find_parser("hermes")(TOOLS))


def read(text: str, form: Any, push: Callable[..., Any], *, sizes: int, reason: str = "stop") -> list[Any]:
    """Feeds `text` in pieces of `sizes` characters; returns the events to send."""
    reader, blank, told = reader_of(), BlankText(is_plain=False), []
    pieces = [text[at : at + sizes] for at in range(0, len(text), sizes)] or [""]
    for number, piece in enumerate(pieces, start=1):
        is_last = number == len(pieces)
        events = reader.feed(piece) + (reader.finish() if is_last else [])
        told += push(form, blank.without(events, is_last=is_last), reason if is_last else None)
    return told


def push_items(form: Output, events: Any, reason: str | None) -> Any:
    return form.push(events, [], finish_reason=reason)


def push_blocks(form: Content, events: Any, reason: str | None) -> Any:
    return form.push(events, finish_reason=reason)


def items_of(text: str, *, sizes: int = 10_000, is_streamed: bool = False, reason: str = "stop") -> list[Any]:
    form = Output(is_streamed=is_streamed)
    read(text, form, push_items, sizes=sizes, reason=reason)
    form.finish("incomplete" if reason == "length" else "completed")
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in form.items]


def blocks_of(text: str, *, sizes: int = 10_000, is_streamed: bool = False, reason: str = "stop") -> list[Any]:
    form = Content(is_streamed=is_streamed)
    read(text, form, push_blocks, sizes=sizes, reason=reason)
    return [{key: value for key, value in block.items() if key != "id"} for block in form.blocks]


TEXTS = [
    ALL,
    "",
    "\n",
    "Just text.\n",
    CALL,
    f"\n\n{CALL}\n",
    f"{CALL} So.",
    "<think>never closed",
    "<think></think>\n\nYes",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:30])
def test_the_pieces_of_a_text_do_not_matter(text: str) -> None:
    for sizes in (1, 2, 7):
        for is_streamed in (False, True):
            assert items_of(text, sizes=sizes, is_streamed=is_streamed) == items_of(text)
            assert blocks_of(text, sizes=sizes, is_streamed=is_streamed) == blocks_of(text)


def test_reasoning_text_and_calls_are_items_in_their_order() -> None:
    reasoning, message, first, second = items_of(ALL)
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "Let me see.\n"
    assert (first["name"], second["name"]) == ("look", "ring")
    assert first["arguments"] == second["arguments"] == ARGUMENTS
    assert {item["status"] for item in (reasoning, message, first, second)} == {"completed"}
    thinking, text, *calls = blocks_of(ALL)
    assert thinking == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert text == {"type": "text", "text": "Let me see.\n"}
    assert [(call["name"], call["input"]) for call in calls] == [("look", ARGUMENTS), ("ring", ARGUMENTS)]


def test_blank_text_is_an_answer_only_where_there_is_nothing_else() -> None:
    assert [item["type"] for item in items_of(f"\n\n{CALL}\n")] == ["function_call"]
    assert items_of("\n")[0]["content"][0]["text"] == "\n"
    assert items_of("")[0]["content"][0]["text"] == ""
    assert blocks_of("") == []


def test_events_of_a_response_name_their_item_and_add_up() -> None:
    form = Output(is_streamed=True)
    told = read(ALL, form, push_items, sizes=3)
    told += form.finish("completed")
    texts = [""] * len(form.items)
    open_item = None
    for event in told:
        index = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert open_item is None and index == len(
                [e for e in told[: told.index(event)] if e["type"].endswith("item.done")]
            )
            assert event["item"]["status"] == "in_progress" and not event["item"].get("content")
            open_item = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert event["item"]["id"] == open_item and event["item"] == form.items[index]
            open_item = None
        else:
            assert event["item_id"] == open_item
        if event["type"].endswith(".delta"):
            texts[index] += event["delta"]
    assert open_item is None
    assert texts == [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"] for item in form.items
    ]


def test_arguments_of_a_message_are_the_text_of_the_model() -> None:
    form = Content(is_streamed=False)
    read(CALL, form, push_blocks, sizes=5)
    assert f'"input": {ARGUMENTS}' in form.json()
    json.loads(form.json())


@pytest.mark.parametrize("cut", range(CALL.index(', "at"') + 2, len(CALL) - 14, 5))
def test_a_call_that_is_cut_is_what_a_client_makes_of_its_stream(cut: int) -> None:
    form = Content(is_streamed=False)
    read(CALL[:cut], form, push_blocks, sizes=4, reason="length")
    (block,) = json.loads(form.json())
    assert block["type"] == "tool_use" and isinstance(block["input"], dict)
    (item,) = items_of(CALL[:cut], reason="length")
    assert (
        item["type"] == "function_call" and ARGUMENTS.startswith(item["arguments"]) and item["status"] == "incomplete"
    )


def test_a_call_that_breaks_off_is_text_in_a_whole_answer() -> None:
    text = '<tool_call>{"name": "look", "arguments": {"a": 1, oops'
    (item,) = items_of(text)
    assert item["content"][0]["text"] == text
    assert blocks_of(text) == [{"type": "text", "text": text}]
    assert blocks_of("So: " + text) == [{"type": "text", "text": "So: " + text}]


def test_items_of_one_answer_are_one_message() -> None:
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call",
            "call_id": "2",
            "name": "g",
            "arguments": "{}",
            "status": "completed",
            "caller": None,
        },
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "y"}]},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    messages = chat_messages([ITEM_TYPES.validate_python(item) for item in items], instructions="i")
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for call_id, name in (("1", "f"), ("2", "g"))
    ]
    assert messages == [
        {"role": "system", "content": "i"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "reasoning_content": "r", "content": "b", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "tool", "tool_call_id": "2", "content": "y"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]


def test_the_store_keeps_the_latest_within_its_limits() -> None:
    def body(number: int, text: str = "x") -> dict[str, Any]:
        return {"id": f"resp_{number}", "output": [{"id": f"msg_{number}", "text": text}]}

    item = ITEM_TYPES.validate_python({"role": "user", "content": "y" * 100})
    few = ResponseStore(max_responses=2)
    for number in range(3):
        few.add(body(number), [item])
    assert [few.find(f"resp_{number}") is not None for number in range(3)] == [False, True, True]
    assert few.find_item("msg_0") is None and few.find_item("msg_2") == body(2)["output"][0]
    small = ResponseStore(max_bytes=1000)
    small.add(body(0), [item] * 3)
    small.add(body(1, "z" * 2000), [item])  # larger than the store: the others stay
    assert small.find("resp_0") is not None and small.find("resp_1") is None
    small.add(body(2), [item] * 4)
    assert small.find("resp_0") is None and small.find("resp_2") is not None
    assert small.delete("resp_2") and not small.delete("resp_2")
    small.add(body(3), [item] * 5)  # its bytes were freed
    assert small.find("resp_3") is not None and len(small) == 1
