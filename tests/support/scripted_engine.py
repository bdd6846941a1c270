"""An engine process that is a thread of the test, which reads and sends messages at the engine's end of the socket."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from outrider.engine import client
from outrider.engine.channel import Channel
from outrider.engine.messages import Begin, EngineInfo

INFO = EngineInfo(
    process_id=1,
    description=[],
    vocab_size=100,
    max_model_len=64,
    max_num_seqs=4,
    eos_token_ids=(),
    num_blocks=8,
    is_exact=True,
)


class EngineEnd:
    """The engine's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._channel = Channel(end)
        self._messages: list[Any] = []

    def receive(self) -> Any:
        """The next message; blocks until there is one."""
        while not self._messages:
            self._channel.wait()
            self._messages += self._channel.receive()
        return self._messages.pop(0)

    def send(self, *messages: object) -> None:
        for message in messages:
            self._channel.send(message)

    def close(self) -> None:
        self._channel.close()


class _Exited:
    """Stands for a process that has ended."""

    returncode = 7

    def wait(self, timeout: float | None = None) -> int:
        return self.returncode


def play_engine(monkeypatch: pytest.MonkeyPatch, play: Callable[[EngineEnd, Begin], None]) -> None:
    """The next engine process is `play`, which gets the first message; the socket closes when it returns."""

    def start_interpreter(end: socket.socket) -> subprocess.Popen[bytes]:
        engine = EngineEnd(end.dup())

        def run() -> None:
            with contextlib.suppress(EOFError, OSError):  # the client has closed its end
                play(engine, engine.receive())
            engine.close()

        threading.Thread(target=run, daemon=True).start()
        return _Exited()  # type: ignore[return-value]

    monkeypatch.setattr(client, "start_interpreter", start_interpreter)
