"""Middleware in front of every endpoint: API keys and the limit on the size of a body."""

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.server.errors import APIError

GUARDED = ("/v1/", "/v2/", "/tokenize", "/detokenize", "/score", "/rerank", "/classify", "/pooling")
"""Path prefixes that need a key if the server has keys; the others show no prompt and use no model time."""

OPEN = ("/health",)
"""Paths that never need a key: what starts and watches servers has none."""


class ApiKeys:
    """Refuses requests without a known key."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], prefixes: tuple[str, ...] = GUARDED) -> None:
        """prefixes: of paths that need a key; `OPEN` never does."""
        self._app = app
        self._prefixes = prefixes
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http" or not self._needs_key(scope["path"]) or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        error = APIError(
            "the API key is missing or wrong. Send it as `Authorization: Bearer KEY`, or as `x-api-key: KEY`.",
            status=401,
            kind="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response(scope["path"])(scope, receive, send)

    def _needs_key(self, path: str) -> bool:
        return path.startswith(self._prefixes) and path not in OPEN

    def _is_known(self, scope: Scope) -> bool:
        """True if one of the two headers has a known key: the second is that of Anthropic's clients."""
        found = [hmac.compare_digest(key, known) for key in given_keys(scope) for known in self._keys]  # constant time
        return any(found)


def given_keys(scope: Scope) -> list[bytes]:
    """The keys in a request's two headers; b"" where there is none."""
    headers = dict(reversed(scope["headers"]))  # the first of a name counts
    kind, _, key = headers.get(b"authorization", b"").partition(b" ")
    return [key.strip() if kind.lower() == b"bearer" else b"", headers.get(b"x-api-key", b"").strip()]


class BodyLimit:
    """Refuses bodies that are too long, with or without a Content-Length header."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if said.isdigit() and int(said) > self._max_bytes:
            await self._error().response(scope["path"])(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise self._error()
            return message

        await self._app(scope, counted, send)

    def _error(self) -> APIError:
        return APIError(
            f"the body is longer than {self._max_bytes} bytes, the server's --max-body-bytes. Send less.",
            status=413,
            headers={"Connection": "close"},
        )
