"""`outrider serve` as a process of its own, as a user starts it: its address, its two processes, its end."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from outrider.gate.metrics_page import parse_page

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
_COMMAND = "from outrider.cli import main; main()"


class RunningServer:
    """A server on a free port. Use it as `with`."""

    def __init__(self, *options: object, model: Path | None = None) -> None:
        """`model`: None serves the zoo, with its drafter."""
        named = [str(model)] if model is not None else []
        command = [sys.executable, "-P", "-c", _COMMAND, "serve", *named, "--port", "0", *map(str, options)]
        path = os.pathsep.join([str(ROOT / "src"), *sys.path])
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        self.front = psutil.Process(self.process.pid)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self._news.put(line)
        self._news.put(None)

    def _wait_until_ready(self) -> str:
        end = time.monotonic() + START_SECONDS
        while True:
            line = self._news.get(timeout=max(end - time.monotonic(), 0.1))
            assert line is not None, "the server ended:\n" + "\n".join(self.lines)
            found = re.match(r"Ready on (\S+)", line)
            if found:
                return found[1]

    @property
    def engine(self) -> psutil.Process:
        """The engine's process."""
        (child,) = [child for child in self.front.children() if child.status() != psutil.STATUS_ZOMBIE]
        return child

    def memory(self) -> tuple[int, int]:
        """Resident bytes of front and engine."""
        return self.front.memory_info().rss, self.engine.memory_info().rss

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """By name without prefix; with the label that tells series of one name apart, where there is one."""
        found = {}
        for entry in parse_page(self.get("/metrics")[1]):
            label = "".join(f":{value}" for name, value in entry.labels.items() if name not in ("model_name", "engine"))
            found[entry.name.removeprefix("outrider:") + label] = entry.value
        return found

    def wait_until_idle(self, seconds: float = 60.0) -> dict[str, float]:
        """The counts once nothing runs and nothing waits."""
        return self.wait_for(lambda m: m["num_requests_running"] == m["num_requests_waiting"] == 0, seconds=seconds)

    def wait_for(self, holds, *, seconds: float = 60.0) -> dict[str, float]:
        """The counts once `holds` of them."""
        end = time.monotonic() + seconds
        while not holds(counts := self.metrics()):
            assert time.monotonic() < end, f"still {counts}"
            time.sleep(0.05)
        return counts

    def terminate(self) -> None:
        """Sends SIGTERM, as a supervisor does."""
        self.process.send_signal(signal.SIGTERM)

    def end(self, seconds: float = 30.0) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        assert not any("leaked" in line for line in self.lines), "a person would read of leaks at the end"
        return code

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.terminate()
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        print("\n".join(self.lines))
