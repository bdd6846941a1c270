"""The real server as a process of its own, as a person starts it.

Knows the command line and the last line of its start-up; nothing of what is asked.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROGRAM = "from outrider.cli import main; main()"


@dataclass
class Served:
    """A server that answers."""

    url: str
    """With a slash at its end."""
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").rstrip("/").split(":")
        return host, int(port)


@contextmanager
def served(*options: str) -> Iterator[Served]:
    """`outrider serve` with these options on a free port, ended by SIGTERM; a test that fails shows what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "serve", "--port", "0", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Served(_ready(process), process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.stdout.close()


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        found = re.match(r"Ready on (http\S+)", line)
        if found:
            return found[1] + "/"
    raise AssertionError(f"the server ended with {process.wait()} before it was ready")
