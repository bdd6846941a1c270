"""One log line per request, with --log-requests: id, endpoint, status, token counts, finish reasons, seconds.

Never the text of a prompt or an output, an error message or a key. Knows paths and counts; runs nothing.
"""

import json
import logging
import re
import time
from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)
_PLAIN = re.compile(r"[\w./:~-]{1,160}", re.ASCII)


class Counts(Protocol):
    """The counts of the job that a request led to."""

    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...
    @property
    def finish_reasons(self) -> list[str]: ...


class RequestLog:
    """Logs each request under the given path prefixes when its response has ended."""

    def __init__(self, app: ASGIApp, *, prefixes: Sequence[str]) -> None:
        self._app = app
        self._prefixes = tuple(prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefixes):
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 500
        state = scope.setdefault("state", {})

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.monotonic() - begin
            found: tuple[str, Counts] | None = state.get("delivery")
            head = f"endpoint={_plain(scope['path'])} status={status}"
            if found is None:
                _log.info("%s seconds=%.3f", head, seconds)
            else:
                answer_id, delivery = found
                _log.info(
                    "id=%s %s prompt_tokens=%d output_tokens=%d finish_reason=%s seconds=%.3f",
                    _plain(answer_id),
                    head,
                    delivery.num_prompt_tokens,
                    delivery.num_output_tokens,
                    ",".join(dict.fromkeys(delivery.finish_reasons)),
                    seconds,
                )


def note_delivery(request: Request, *, answer_id: str, delivery: Counts) -> None:
    """Tells the log of this request which answer it led to, and where its counts are."""
    request.state.delivery = (answer_id, delivery)


def _plain(text: str) -> str:
    """`text`, quoted as JSON where it has characters that could be mistaken for another field or another line."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text[:160])
