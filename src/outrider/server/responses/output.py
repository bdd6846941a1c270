"""The output of a response as it grows: its items, and OpenAI's event for each change.

The same items are the output of a whole answer, so a stream and a whole answer cannot differ. Knows no HTTP.
"""

import secrets
from typing import Any

from outrider.server.answer_events import Arguments, CallBegin, CallBroken, Event, Reasoning, Text

Told = dict[str, Any]
"""An event of a stream, without its sequence number."""


def new_id(kind: str) -> str:
    """A random id that cannot be guessed."""
    return f"{kind}_{secrets.token_hex(24)}"


class Output:
    """The items of one response."""

    def __init__(self, *, is_streamed: bool) -> None:
        """`is_streamed`: what was sent cannot be taken out again."""
        self.items: list[dict[str, Any]] = []
        self._is_streamed = is_streamed
        self._is_open = False
        """True while the last item grows."""
        self._logprobs: list[Any] = []
        """Log-probabilities of tokens whose text has not come yet."""

    def push(self, events: list[Event], logprobs: list[Any], *, finish_reason: str | None) -> list[Told]:
        """Adds what was read, and the log-probabilities of its tokens; returns the events to send."""
        self._logprobs += logprobs
        told: list[Told] = []
        for event in events:
            if isinstance(event, CallBegin):
                told += self._close("completed")
                told += self._open({"type": "function_call", "call_id": event.id, "name": event.name, "arguments": ""})
            elif isinstance(event, Arguments):
                self.items[-1]["arguments"] += event.text
                told.append(self._told("response.function_call_arguments.delta", delta=event.text))
            elif isinstance(event, Reasoning):
                told += self._text("reasoning", event.text)
            elif isinstance(event, Text):
                told += self._text("message", event.text)
            elif isinstance(event, CallBroken) and not (event.is_cut and finish_reason == "length"):
                told += self._break_call(event.text)
        return told

    def _break_call(self, text: str) -> list[Told]:
        """The last item is not a call after all. A stream has sent it; a whole answer has its text instead."""
        if self._is_streamed:
            return self._close("incomplete")
        self.items.pop()
        self._is_open = bool(self.items) and self.items[-1]["type"] == "message"  # the text continues there
        return self._text("message", text)

    def finish(self, status: str) -> list[Told]:
        """Ends the last item with `status`, "completed" or "incomplete". An answer without items gets an empty text."""
        told = [] if self.items else self._text("message", "")
        if self._logprobs and self._is_open and self.items[-1]["type"] == "message":
            self.items[-1]["content"][0]["logprobs"] += self._logprobs
        return told + self._close(status)

    @property
    def reasoning(self) -> str:
        """The text of all reasoning."""
        return "".join(item["content"][0]["text"] for item in self.items if item["type"] == "reasoning")

    def _text(self, kind: str, text: str) -> list[Told]:
        events: list[Told] = []
        if not self._is_open or self.items[-1]["type"] != kind:
            events += self._close("completed")
            if kind == "message":
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                events += self._open({"type": kind, "role": "assistant", "content": []})
            else:
                part = {"type": "reasoning_text", "text": ""}
                events += self._open({"type": kind, "summary": [], "content": []})
            self.items[-1]["content"].append(part)
            events.append(self._part_told("response.content_part.added", part=_copy(part)))
        part = self.items[-1]["content"][0]
        part["text"] += text
        if kind == "message":
            part["logprobs"] += self._logprobs
            if text:
                events.append(self._part_told("response.output_text.delta", delta=text, logprobs=self._logprobs))
            self._logprobs = []
        elif text:
            events.append(self._part_told("response.reasoning_text.delta", delta=text))
        return events

    def _open(self, item: dict[str, Any]) -> list[Told]:
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[item["type"]]
        self.items.append({"id": new_id(prefix), "status": "in_progress"} | item)
        self._is_open = True
        return [self._item_told("response.output_item.added")]

    def _close(self, status: str) -> list[Told]:
        if not self._is_open:
            return []
        item = self.items[-1]
        item["status"] = status
        self._is_open = False
        events: list[Told] = []
        if item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            events.append(self._told("response.function_call_arguments.done", **done))
        else:
            (part,) = item["content"]
            if item["type"] == "message":
                done = {"text": part["text"], "logprobs": part["logprobs"]}
                events.append(self._part_told("response.output_text.done", **done))
            else:
                events.append(self._part_told("response.reasoning_text.done", text=part["text"]))
            events.append(self._part_told("response.content_part.done", part=_copy(part)))
        return [*events, self._item_told("response.output_item.done")]

    def _told(self, kind: str, **fields: Any) -> Told:
        return {"type": kind, "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1} | fields

    def _part_told(self, kind: str, **fields: Any) -> Told:
        return self._told(kind, content_index=0, **fields)

    def _item_told(self, kind: str) -> Told:
        item = dict(self.items[-1])
        if "content" in item:
            item["content"] = [_copy(part) for part in item["content"]]
        return {"type": kind, "output_index": len(self.items) - 1, "item": item}


def _copy(part: dict[str, Any]) -> dict[str, Any]:
    """A part as it is now: an event must not change when the part grows."""
    return {key: list(value) if isinstance(value, list) else value for key, value in part.items()}
