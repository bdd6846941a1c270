"""A socket between the engine's process and its client: carries whole Python objects; only `wait` blocks.

    frame:  | length, 8 bytes | pickle |

Both ends belong to the same program and the socket is inherited, never bound: received data is trusted.
"""

import pickle
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_LENGTH_BYTES = 8
_READ_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 22
"""Size of the kernel's send buffer, which the system may limit."""


class Channel:
    """One end of the socket. `send` never waits: data that the socket does not accept is kept until `flush`."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._socket = end
        self._received = bytearray()
        self._backlog: deque[memoryview] = deque()
        self._selector: selectors.BaseSelector | None = None
        self._wakes: tuple[socket.socket, socket.socket] | None = None

    def fileno(self) -> int:
        """File descriptor, for select and event loops."""
        return self._socket.fileno()

    @property
    def has_backlog(self) -> bool:
        """True while the socket has not accepted all data."""
        return bool(self._backlog)

    def send(self, message: object) -> None:
        """Send one object. Raises OSError if the other end has disconnected."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._backlog.append(memoryview(len(data).to_bytes(_LENGTH_BYTES, "little") + data))
        self.flush()

    def flush(self) -> None:
        """Write as much as the socket accepts now."""
        while self._backlog:
            try:
                count = self._socket.send(self._backlog[0])
            except BlockingIOError:
                return
            if count < len(self._backlog[0]):
                self._backlog[0] = self._backlog[0][count:]
            else:
                self._backlog.popleft()

    def receive(self) -> list[Any]:
        """Return every object received in full. Raises EOFError if the other end has disconnected."""
        try:
            while True:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise EOFError
                self._received += data
                if len(data) < _READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except ConnectionError as error:
            raise EOFError from error
        return list(self._whole_messages())

    def _whole_messages(self) -> list[Any]:
        messages, place, received = [], 0, self._received
        while len(received) - place >= _LENGTH_BYTES:
            size = int.from_bytes(received[place : place + _LENGTH_BYTES], "little")
            end = place + _LENGTH_BYTES + size
            if len(received) < end:
                break
            messages.append(pickle.loads(memoryview(received)[place + _LENGTH_BYTES : end]))
            place = end
        if place:
            del received[:place]
        return messages

    def make_waker(self) -> Callable[[], None]:
        """A function that ends a `wait` of now or later; any thread may call it."""
        assert self._wakes is None, "made once"
        self._wakes = inner, outer = socket.socketpair()
        inner.setblocking(False)
        outer.setblocking(False)
        if self._selector is not None:
            self._selector.register(inner, selectors.EVENT_READ)

        def wake() -> None:
            with suppress(OSError):  # full: it wakes already; closed: there is no wait
                outer.send(b"w")

        return wake

    def wait(self) -> None:
        """Wait until data can be read, or, with a backlog, written, or until it is woken."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._socket, selectors.EVENT_READ)
            if self._wakes is not None:
                self._selector.register(self._wakes[0], selectors.EVENT_READ)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
        self._selector.modify(self._socket, events)
        for key, _ in self._selector.select():
            if self._wakes is not None and key.fileobj is self._wakes[0]:
                self._wakes[0].recv(_READ_BYTES)

    def close(self) -> None:
        """Close this end; the other end gets EOFError."""
        if self._selector is not None:
            self._selector.close()
        for end in self._wakes or ():
            end.close()
        self._socket.close()
