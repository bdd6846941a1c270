"""Tool calls in the text of an answer: the parser's contract, and the two forms that a grammar forces.

A parser reads text as it comes and gives text and whole calls. What looks like a call and is none stays text: nothing
is lost. Knows no HTTP and no model.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function; arguments are JSON, as text."""

    name: str
    arguments: str


Piece = str | Call


class ToolParser(ABC):
    """Reads one answer."""

    keeps_special_tokens = False
    """True where the marks of a call are special tokens, which texts leave out otherwise."""

    @abstractmethod
    def push(self, text: str) -> list[Piece]:
        """What some more text completes; what may belong to a call is held back."""

    @abstractmethod
    def finish(self) -> list[Piece]:
        """What was held back, when nothing more comes."""


def call_of(value: Any, *, arguments_key: str) -> Call | None:
    """A call from its JSON, or None where that is no call."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(arguments_key, {})
    if not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))


def held_back(text: str, mark: str) -> int:
    """Characters at the end of `text` that may be the beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


class NamedCall(ToolParser):
    """The whole answer is the arguments of one function: a grammar made it so. Begun at once, with what there is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = ""

    def push(self, text: str) -> list[Piece]:
        """Nothing: arguments are given whole."""
        self._text += text
        return []

    def finish(self) -> list[Piece]:
        """The call, unfinished where the answer is."""
        return [Call(self._name, self._text)]


class CallList(ToolParser):
    """The answer is a JSON array of {"name", "parameters"}: a grammar made it so. Calls are given one by one."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def push(self, text: str) -> list[Piece]:
        """The calls that `text` completes."""
        self._text += text
        calls: list[Piece] = []
        while (start := self._text.find("{")) >= 0:
            try:
                value, end = self._decoder.raw_decode(self._text, start)
            except json.JSONDecodeError:
                break  # not all of it is here
            call = call_of(value, arguments_key="parameters")
            assert call is not None, f"the grammar let {value!r} pass"
            calls.append(call)
            self._text = self._text[end:]
        return calls

    def finish(self) -> list[Piece]:
        """Nothing: an unfinished call is none."""
        return []


def list_schema(tools: Sequence[Mapping[str, Any]], *, is_parallel: bool) -> dict[str, Any]:
    """JSON schema of a list of calls of `tools` ({"name", "parameters"}). Raises RequestError."""
    definitions: dict[str, Any] = {}
    calls = []
    for tool in tools:
        parameters = dict(tool.get("parameters") or {"type": "object"})
        for name, value in parameters.pop("$defs", {}).items():
            if definitions.setdefault(name, value) != value:
                raise RequestError(f"tools: two functions have different $defs of the name {name!r}. Rename one.")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not is_parallel:
        schema["maxItems"] = 1
    if definitions:
        schema["$defs"] = definitions
    return schema
