"""A running server as its callers see it: its address and what it printed at startup."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.running_server import RunningServer


@dataclass
class ServerUnderTest:
    """A server that is ready."""

    url: str
    """Ends with a slash."""
    process: subprocess.Popen[str]
    start_up: list[str]
    """Every line that it printed until it was ready."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        return host, int(port)


@contextmanager
def serve(*options: str) -> Iterator[ServerUnderTest]:
    """`outrider serve` with these options on a free port, ended by SIGTERM. A failing test shows its output."""
    with RunningServer(*options) as running:
        yield ServerUnderTest(running.url + "/", running.process, list(running.lines))
