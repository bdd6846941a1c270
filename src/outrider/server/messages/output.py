"""The content of a message as it grows: its blocks, and Anthropic's event for each change. Knows no HTTP.

Arguments of a tool call are the model's own text in a stream and in a whole answer: they are never parsed and written
again, which would change long numbers and repeated keys.
"""

import json
from typing import Any

from pydantic_core import from_json

from outrider.server.answer_events import Arguments, CallBegin, CallBroken, Event, Reasoning, Text

Told = dict[str, Any]
"""An event of a stream."""


class Content:
    """The content blocks of one message."""

    def __init__(self, *, is_streamed: bool) -> None:
        """`is_streamed`: what was sent cannot be taken out again."""
        self.blocks: list[dict[str, Any]] = []
        """The blocks of the answer, with the text of a tool's input so far in place of its object."""
        self._is_streamed = is_streamed
        self._is_open = False

    def push(self, events: list[Event], *, finish_reason: str | None) -> list[Told]:
        """Adds what was read; returns the events to send."""
        told: list[Told] = []
        for event in events:
            if isinstance(event, CallBegin):
                told += self.finish()
                block = {"type": "tool_use", "id": event.id, "name": event.name}
                told += self._open(block | {"input": ""}, shown=block | {"input": {}})
            elif isinstance(event, Arguments):
                self.blocks[-1]["input"] += event.text
                told.append(self._delta(type="input_json_delta", partial_json=event.text))
            elif isinstance(event, Reasoning):
                told += self._begin({"type": "thinking", "thinking": "", "signature": ""})
                self.blocks[-1]["thinking"] += event.text
                told.append(self._delta(type="thinking_delta", thinking=event.text))
            elif isinstance(event, Text):
                told += self._text(event.text)
            elif isinstance(event, CallBroken) and not (event.is_cut and finish_reason == "length"):
                told += self._break_call(event.text)
        return told

    def _break_call(self, text: str) -> list[Told]:
        """The last block is not a call after all. A stream has sent it; a whole answer has its text instead."""
        if self._is_streamed:
            return self.finish()
        self.blocks.pop()
        self._is_open = bool(self.blocks) and self.blocks[-1]["type"] == "text"  # the text continues there
        return self._text(text)

    def _text(self, text: str) -> list[Told]:
        told = self._begin({"type": "text", "text": ""})
        self.blocks[-1]["text"] += text
        return [*told, self._delta(type="text_delta", text=text)]

    def finish(self) -> list[Told]:
        """Ends the last block."""
        if not self._is_open:
            return []
        self._is_open = False
        return [{"type": "content_block_stop", "index": len(self.blocks) - 1}]

    @property
    def has_calls(self) -> bool:
        """True if there is a tool call."""
        return any(block["type"] == "tool_use" for block in self.blocks)

    def json(self) -> str:
        """The blocks as JSON, with the arguments of tool calls as the model wrote them."""
        return f"[{','.join(map(_block_json, self.blocks))}]"

    def _begin(self, block: dict[str, Any]) -> list[Told]:
        if self._is_open and self.blocks[-1]["type"] == block["type"]:
            return []
        return [*self.finish(), *self._open(block, shown=dict(block))]

    def _open(self, block: dict[str, Any], *, shown: dict[str, Any]) -> list[Told]:
        self.blocks.append(block)
        self._is_open = True
        return [{"type": "content_block_start", "index": len(self.blocks) - 1, "content_block": shown}]

    def _delta(self, **delta: Any) -> Told:
        return {"type": "content_block_delta", "index": len(self.blocks) - 1, "delta": delta}


def _block_json(block: dict[str, Any]) -> str:
    if block["type"] != "tool_use":
        return json.dumps(block, ensure_ascii=False)
    head = json.dumps({key: value for key, value in block.items() if key != "input"}, ensure_ascii=False)
    return f'{head[:-1]}, "input": {_object(block["input"])}}}'


def _object(text: str) -> str:
    """`text` if it is a JSON object, else the object that it begins, as a client makes it of a stream that is cut."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return text
    try:
        begun = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        begun = None
    return json.dumps(begun) if isinstance(begun, dict) else "{}"
