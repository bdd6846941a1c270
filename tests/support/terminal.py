"""A program on a terminal of its own, as a person uses it: what it shows, and keys."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

COLUMNS, LINES = 80, 24


class Terminal:
    """Runs a command on a pseudo-terminal of 80 columns. Use it as `with`."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], cwd: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""
        """Everything that was written, with its codes."""
        self._read = 0  # characters of it that `wait_for` has passed

    def wait_for(self, pattern: str, *, seconds: float = 120.0) -> str:
        """Text from the last match to this one, codes of colour and cursor left out."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, without_codes(self.shown[self._read :]), flags=re.DOTALL)
            if found:
                text = without_codes(self.shown[self._read :])[: found.end()]
                self._read = len(self.shown)
                return text
            assert time.monotonic() < end, f"no {pattern!r} in {self.shown[self._read :]!r}"
            self._receive(0.2)

    def _receive(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            try:
                self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
            except OSError:  # the program has exited
                time.sleep(seconds)

    def type(self, keys: str) -> None:
        """Press keys; Enter is \\r."""
        os.write(self._master, keys.encode())

    def end(self, seconds: float = 30.0) -> int:
        """The exit code, once it has exited."""
        end = time.monotonic() + seconds
        while self._process.poll() is None:
            assert time.monotonic() < end, f"still running: {self.shown[-500:]!r}"
            self._receive(0.1)
        return self._process.returncode

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)


def without_codes(text: str) -> str:
    """`text` without escape sequences, and without a line written apart from it (cursor saved and restored)."""
    text = re.sub(r"\x1b7.*?\x1b8", "", text, flags=re.DOTALL)
    return re.sub(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[78D])", "", text)
