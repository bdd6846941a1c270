"""Middleware against web pages of other origins, and the headers that every response carries.

A browser sends some requests to any server without asking it first. So a page that someone has open could make a server
on that machine compute, and one whose name the page's owner points at this machine (DNS rebinding) could read the
answers, too. Programs that are not browsers send no Origin and are not affected.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.server.errors import APIError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine that no other machine can claim."""

_SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing and compute nothing: a link on another page may lead here."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every response that does not set them itself."""


def hosts_allowed(host: str, *, has_keys: bool, allowed: Sequence[str]) -> tuple[str, ...]:
    """Names by which the server may be called; none for every name.

    Without keys, a server that listens on this machine alone is called by this machine's names, and by `allowed`. Who
    has to know a key gains nothing from another name.
    """
    if allowed:
        return () if "*" in allowed else (*LOOPBACK_HOSTS, *(name.lower() for name in allowed))
    return LOOPBACK_HOSTS if _is_loopback(host) and not has_keys else ()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


class HostGuard:
    """Refuses requests that call the server by a name that is not its own."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        given = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] != "http" or not given or (len(given) == 1 and self._is_own(_name_of(given[0]))):
            await self._app(scope, receive, send)
            return
        error = APIError(
            f"the header Host is {', '.join(given)[:80]!r}, and this server is called {', '.join(sorted(self._hosts))}."
            " Use one of these names, or start it with --allowed-hosts NAME or --api-key-file.",
            status=403,
            kind="permission_error",
            code="unknown_host",
        )
        await error.response(scope["path"])(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        """True for an allowed name, and for every address: no page can make an address lead elsewhere."""
        return name in self._hosts or _address(name) is not None


def _name_of(host: str) -> str:
    """The name in "name", "name:80", "[::1]" or "[::1]:80", in small letters."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


class OriginGuard:
    """Refuses what pages of other origins send, unless their origin is allowed."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        """origins: those allowed beside the server's own; "*" allows all."""
        self._app = app
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http" or scope["method"] in _SAFE or "*" in self._origins or self._is_own(scope):
            await self._app(scope, receive, send)
            return
        error = APIError(
            "this request comes from a web page of another origin. Start the server with --allowed-origins ORIGIN if"
            " that page may call it.",
            status=403,
            kind="permission_error",
            code="foreign_origin",
        )
        await error.response(scope["path"])(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site", "none") in ("none", "same-origin")
        return origin in self._origins or urlsplit(origin).netloc == headers.get(b"host")


_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class ResponseHeaders:
    """Adds the headers that tell a browser to take every response for what it is, and never to show it in a frame."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(i for i in _RAW_HEADERS if i[0] not in given)]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
