"""Tool calls of Hermes, Qwen2.5 and Qwen3: <tool_call>{"name": …, "arguments": {…}}</tool_call>."""

import json

from outrider.server.tool_calls import Piece, ToolParser, call_of, held_back

_BEGIN, _END = "<tool_call>", "</tool_call>"


class Parser(ToolParser):
    """Returns text up to a begin mark at once, and a call at its end mark."""

    def __init__(self) -> None:
        self._held = ""
        self._is_inside = False

    def push(self, text: str) -> list[Piece]:
        """Adds text and returns the text and calls that are complete."""
        self._held += text
        pieces: list[Piece] = []
        while True:
            mark = _END if self._is_inside else _BEGIN
            before, found, behind = self._held.partition(mark)
            if not found:
                break
            pieces.append(_call(before, ended=True) if self._is_inside else before)
            self._held = behind
            self._is_inside = not self._is_inside
        if not self._is_inside:
            end = len(self._held) - held_back(self._held, _BEGIN)
            pieces.append(self._held[:end])
            self._held = self._held[end:]
        return [piece for piece in pieces if piece]

    def finish(self) -> list[Piece]:
        """Returns the rest; a call that lacks only its end mark counts as a call."""
        held, self._held = self._held, ""
        if self._is_inside:
            return [_call(held, ended=False)]
        return [held] if held else []


def _call(text: str, *, ended: bool) -> Piece:
    try:
        call = call_of(json.loads(text), arguments_key="arguments")
    except ValueError:
        call = None
    return call or _BEGIN + text + (_END if ended else "")
