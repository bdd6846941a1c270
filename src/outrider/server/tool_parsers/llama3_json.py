"""Tool calls of Llama 3.1 and 3.2: {"name": …, "parameters": {…}}; answers are all calls or all text."""

import json

from outrider.server.tool_calls import Call, Piece, ToolParser, call_of

_TAG = "<|python_tag|>"


class Parser(ToolParser):
    """Holds an answer that begins like a call until its end; returns any other at once."""

    keeps_special_tokens = True

    def __init__(self) -> None:
        self._held = ""
        self._is_text = False

    def push(self, text: str) -> list[Piece]:
        """Adds text and returns it once the answer cannot be a call."""
        if self._is_text:
            return [text] if text else []
        self._held += text
        begin = self._held.lstrip()
        if not begin or begin.startswith(("{", _TAG)) or _TAG.startswith(begin):
            return []
        self._is_text = True
        held, self._held = self._held, ""
        return [held]

    def finish(self) -> list[Piece]:
        """Returns the calls, or the text if it does not parse as calls."""
        if not self._held:
            return []
        calls = _calls(self._held.strip().removeprefix(_TAG))
        return [*calls] if calls else [self._held]


def _calls(text: str) -> list[Call] | None:
    decoder, calls = json.JSONDecoder(), []
    while True:
        try:
            value, end = decoder.raw_decode(text.lstrip(" \n;"))
        except ValueError:
            return None
        call = call_of(value, arguments_key="parameters") or call_of(value, arguments_key="arguments")
        if call is None:
            return None
        calls.append(call)
        text = text.lstrip(" \n;")[end:]
        if not text.strip(" \n;"):
            return calls
