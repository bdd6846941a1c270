"""Tool calls in the text of an answer: the contract of parsers, and the two forms that a grammar forces.

A parser reads text as it arrives and returns text and complete calls. Text that looks like a call but is not one stays
text, so nothing is lost. Knows no HTTP and no model.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function; `arguments` is a JSON string."""

    name: str
    arguments: str


Piece = str | Call


class ToolParser(ABC):
    """Parses one answer."""

    keeps_special_tokens = False
    """True if special tokens mark calls; they are then kept in the text."""

    @abstractmethod
    def push(self, text: str) -> list[Piece]:
        """Adds text and returns the pieces that are complete; text that may belong to a call is held back."""

    @abstractmethod
    def finish(self) -> list[Piece]:
        """Returns the text that was held back, at the end of the answer."""


def call_of(value: Any, *, arguments_key: str) -> Call | None:
    """The call that a JSON value describes, or None if it is not a call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(arguments_key, {})
    if not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))


def held_back(text: str, mark: str) -> int:
    """Number of characters at the end of `text` that may be the beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


class NamedCall(ToolParser):
    """Parses an answer that is the arguments of one function, as a grammar forces it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = ""

    def push(self, text: str) -> list[Piece]:
        """Holds the text back: arguments are returned whole."""
        self._text += text
        return []

    def finish(self) -> list[Piece]:
        """Returns the call; its arguments are cut if the answer was."""
        return [Call(self._name, self._text)]


class CallList(ToolParser):
    """Parses a JSON array of {"name", "parameters"}, as a grammar forces it. Calls are returned one by one."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def push(self, text: str) -> list[Piece]:
        """Adds text and returns the calls that are complete."""
        self._text += text
        calls: list[Piece] = []
        while (start := self._text.find("{")) >= 0:
            try:
                value, end = self._decoder.raw_decode(self._text, start)
            except json.JSONDecodeError:
                break  # incomplete
            call = call_of(value, arguments_key="parameters")
            assert call is not None, f"the grammar admitted {value!r}"
            calls.append(call)
            self._text = self._text[end:]
        return calls

    def finish(self) -> list[Piece]:
        """Returns nothing: an incomplete call is dropped."""
        return []
