"""JSON answers that are long: log-probabilities of thousands of tokens.

The encoder of the standard library keeps Python's lock until a text is whole. Here it is called for small parts, and
other threads, the event loop's among them, run between two of them.
"""

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

_DEPTH = 4
"""Levels that are taken apart: answer, choices, choice, log-probabilities, and the list of their tokens."""
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode


def encoded(value: Any, *, depth: int = _DEPTH) -> str:
    """`value` as JSON, the same text as that of short answers."""
    if depth < 0 or not value:
        return _encode(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_encode(key)}:{encoded(part, depth=depth - 1)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(encoded(part, depth=depth - 1) for part in value) + "]"
    return _encode(value)


class LargeAnswer(Response):
    """A JSON response. Make it beside the event loop: its text is made at once."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return encoded(content).encode()
