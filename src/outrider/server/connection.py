"""One HTTP connection with limits: bytes and number of headers, and times for headers and body to arrive.

uvicorn's protocol reads headers of any size, and waits for them for ever. Knows nothing of paths and keys.
"""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LINGER_SECONDS = 1.0
"""Time in which a refused request is still read and dropped: closing at once could reset the connection before the
client has read the answer."""


_FRAMING = 16
"""Bytes that may frame each byte of a chunked body: one in a chunk of its own has 5 and more around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of one connection, and of all together."""

    max_connections: int
    max_header_bytes: int
    max_header_count: int
    max_body_bytes: int
    """Longest body that is read and dropped after an answer that did not wait for it."""
    timeout_header: float
    """Seconds from the beginning of a connection or request to the end of its headers."""
    timeout_body: float
    """Seconds from the end of the headers to the end of the body."""


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's that ends when a limit is passed."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._num_bytes = 0  # received since the last request, or since its headers
        self._num_body_bytes = 0
        self._reads_headers = True
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for headers, or refuses the connection if there are too many."""
        super().connection_made(_LingeringTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, f"the server has {self._limits.max_connections} connections, its --limit-concurrency.")
            return
        self._wait(self._limits.timeout_header)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the deadline."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads what arrived. Counts headers before they are complete: a parser keeps them until then."""
        if self._is_refused:
            return
        begins_in_body = not self._reads_headers
        self._num_bytes += len(data)
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._reads_headers:
            if self._num_bytes > self._limits.max_header_bytes:
                self._refuse_headers()
            elif self._is_idle:  # blank lines begin no request, but ended the time for an idle connection
                self._wait(self._limits.timeout_header)
        elif begins_in_body and self._num_bytes > self._limits.max_header_bytes + _FRAMING * self._num_body_bytes:
            self._refuse_headers()  # names of chunks, and headers after the body

    @property
    def _is_idle(self) -> bool:
        """True if no deadline ends the connection and no request is answered on it."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return self._deadline is None and self.timeout_keep_alive_task is None and not is_answering

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._reads_headers = True
        self._wait(self._limits.timeout_header)

    def on_headers_complete(self) -> None:
        """Hands the request to the application, unless its headers are too many."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._reads_headers, self._num_bytes, self._num_body_bytes = False, 0, 0
        if self._is_refused:
            return
        if size > self._limits.max_header_bytes or len(self.headers) > self._limits.max_header_count:
            self._refuse_headers()
            return
        self._wait(self._limits.timeout_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body arrived."""
        self._num_body_bytes += len(body)
        if self._is_refused:
            return
        if self.cycle.response_complete and self._num_body_bytes > self._limits.max_body_bytes:
            self.linger()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request arrived in full."""
        self._stop_waiting()
        self._reads_headers, self._num_bytes = True, 0  # of the next request, if one follows
        if not self._is_refused:
            super().on_message_complete()

    def linger(self) -> None:
        """Closes the connection soon; until then what arrives is read and dropped."""
        self._stop_waiting()
        self._is_refused = True
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._is_late, seconds)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self, seconds: float) -> None:
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self.pipeline or is_answering:  # a later request of a client that reads an answer
            self._wait(seconds)
            return
        if self.cycle is not None and self.cycle.response_complete and not self._reads_headers:
            self.linger()  # the body of a request that was answered before
            return
        part = "headers" if self._reads_headers else "body"
        self._refuse(408, f"the {part} did not arrive within {seconds:g} s, the server's --timeout-{part.rstrip('s')}.")

    def _refuse_headers(self) -> None:
        limits = self._limits
        self._refuse(
            431,
            f"the headers are longer than {limits.max_header_bytes} bytes, the server's --max-header-bytes, or more "
            f"than {limits.max_header_count}, its --max-header-count. Send fewer.",
        )

    def _refuse(self, status: int, message: str) -> None:
        """Answers without the application, and closes the connection."""
        self._stop_waiting()
        self._is_refused = True
        if self.transport.is_closing():
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        if status == 503:  # its descriptor is needed
            self.transport.close()
        else:
            self.linger()


class _LingeringTransport:
    """A transport that is closed a little later if the request was answered before its body arrived."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Closes the connection, as uvicorn asks."""
        cycle = self._connection.cycle
        if cycle is not None and cycle.response_complete and cycle.more_body:
            self._connection.linger()
        else:
            self._transport.close()
