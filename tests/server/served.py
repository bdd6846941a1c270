"""A running server as callers see it: an address, and what it said when it started."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from running_server import RunningServer


@dataclass
class Served:
    """A server that answers."""

    url: str
    """With a slash at its end."""
    process: subprocess.Popen[str]
    start_up: list[str]
    """Every line it printed until then."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        return host, int(port)


@contextmanager
def served(*options: str) -> Iterator[Served]:
    """`outrider serve` with these options on a free port, ended by SIGTERM; a test that fails shows what it printed."""
    with RunningServer(*options) as running:
        yield Served(running.url + "/", running.process, list(running.lines))
