"""Tool calls of Mistral's models: [TOOL_CALLS][{"name": …, "arguments": {…}}, …], or later [TOOL_CALLS]name{…}."""

import json

from outrider.server.tool_calls import Call, Piece, ToolParser, call_of, held_back

_MARK = "[TOOL_CALLS]"
_ARGUMENTS = "[ARGS]"


class Parser(ToolParser):
    """Returns text up to the mark at once, and parses everything after it at the end of the answer."""

    keeps_special_tokens = True

    def __init__(self) -> None:
        self._held = ""
        self._calls: str | None = None

    def push(self, text: str) -> list[Piece]:
        """Adds text and returns what comes before the mark."""
        if self._calls is not None:
            self._calls += text
            return []
        before, found, behind = (self._held + text).partition(_MARK)
        if found:
            self._held, self._calls = "", behind
            return [before] if before else []
        end = len(before) - held_back(before, _MARK)
        self._held = before[end:]
        return [before[:end]] if end else []

    def finish(self) -> list[Piece]:
        """Returns the calls, or the text if it does not parse as calls."""
        if self._calls is None:
            return [self._held] if self._held else []
        calls = _listed(self._calls) or _named(self._calls)
        return [*calls] if calls else [_MARK + self._calls]


def _listed(text: str) -> list[Call] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, list) or not values:
        return None
    calls = [call for value in values if (call := call_of(value, arguments_key="arguments"))]
    return calls if len(calls) == len(values) else None


def _named(text: str) -> list[Call] | None:
    calls = []
    for entry in text.split(_MARK):
        name, brace, rest = entry.replace(_ARGUMENTS, "").partition("{")
        try:
            call = call_of({"name": name.strip(), "arguments": json.loads(brace + rest)}, arguments_key="arguments")
        except ValueError:
            return None
        if call is None or not call.name:
            return None
        calls.append(call)
    return calls
