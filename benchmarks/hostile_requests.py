"""The worst requests that are known, and how long each holds up a stream and /health beside it.

Each request is sent alone to a server whose other caller reads one stream. The table has, for each: the status, the
seconds to its answer, the longest time between two events of the stream from its beginning to a quarter second after
its answer, and the longest answer of /health in that time. The first row has the same figures with no request beside.

    PYTHONPATH=src python3 -m benchmarks.hostile_requests [--only NAME] [--save NAME]

The figures mean something on a quiet machine only. `tests/server/test_hostile_requests.py` sends the same requests and
checks what does not depend on times: none is answered with 500, and none gets more than its share.
"""

import argparse
import datetime
import http.client
import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

MEGABYTES_4 = (4 << 20) - 1000
_COMMAND = "from outrider.cli import main; main()"
_PATIENCE_SECONDS = 60.0
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request."""

    name: str
    path: str
    body: Callable[[], bytes]
    headers: dict[str, str] = field(default_factory=dict)


def _repeated(begin: str, entry: str, end: str) -> Callable[[], bytes]:
    """A body of 4 MB: `entry` as often as it fits, separated by commas."""
    return lambda: (begin + ",".join([entry] * (MEGABYTES_4 // (len(entry) + 1))) + end).encode()


def _numbered(begin: str, entry: str, end: str, count: int) -> Callable[[], bytes]:
    """`count` entries, in which %d is the number of the entry."""
    return lambda: (begin + ",".join(entry % number for number in range(count)) + end).encode()


def _json(**fields: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(fields).encode()


def _schema(schema: dict[str, Any]) -> Callable[[], bytes]:
    return _json(prompt="x", max_tokens=8, structured_outputs={"json": schema})


def _constrained(**constraint: Any) -> Callable[[], bytes]:
    return _json(prompt="x", max_tokens=8, structured_outputs=constraint)


USER = {"role": "user", "content": "x"}
_CHAT_BEGIN = '{"messages":[{"role":"user","content":"x"}],'
_WHOLE = {"type": "integer"}

REQUESTS: tuple[Hostile, ...] = (
    Hostile("messages of nothing", CHAT, _repeated('{"messages":[', "{}", "]}")),
    Hostile("messages that are numbers", CHAT, _repeated('{"messages":[', "1", "]}")),
    Hostile("good messages", CHAT, _repeated('{"messages":[', '{"role":"user","content":"x"}', "]}")),
    Hostile("2048 good messages", CHAT, _json(messages=[USER] * 2048, max_tokens=1)),
    Hostile("parts of a message", CHAT, _repeated('{"messages":[{"role":"user","content":[', "{}", "]}]}")),
    Hostile("12,000 good parts", CHAT, lambda: json.dumps(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 2000}] * 6}).encode()),
    Hostile("prompts of nothing", COMPLETIONS, _repeated('{"prompt":[', "[]", "]}")),
    Hostile("prompts of objects", COMPLETIONS, _repeated('{"prompt":[', "{}", "]}")),
    Hostile("16,000 empty prompts", COMPLETIONS, _numbered('{"prompt":[', "[%d,-1]", "]}", 16_000)),
    Hostile("a million ids", COMPLETIONS, _repeated('{"prompt":[', "1", "]}")),
    Hostile("262,144 ids", COMPLETIONS, _json(prompt=[5] * (1 << 18))),
    Hostile("256 prompts of 1000 ids", COMPLETIONS, _json(prompt=[[5] * 1000] * 256, max_tokens=1)),
    Hostile("ids, the last one wrong", COMPLETIONS, _json(prompt=[5] * 200_000 + ["x"])),
    Hostile("262,144 allowed ids", COMPLETIONS, _json(prompt="x", max_tokens=1, allowed_token_ids=[5] * (1 << 18))),
    Hostile("unknown fields", COMPLETIONS, _numbered('{"prompt":"x",', '"k%d":1', "}", 300_000)),
    Hostile("60,000 unknown fields", COMPLETIONS, _numbered('{"prompt":"x",', '"k%d":null', "}", 60_000)),
    Hostile("an unknown field of 16,000 lists", COMPLETIONS, _numbered('{"prompt":"x","a":[', "[%d]", "]}", 16_000)),
    Hostile("stops", COMPLETIONS, _repeated('{"prompt":"x","stop":[', '"a"', "]}")),
    Hostile("100,000 stops", COMPLETIONS, _numbered('{"prompt":"x","stop":[', '"a%d"', "]}", 100_000)),
    Hostile("biases", COMPLETIONS, _numbered('{"prompt":"x","logit_bias":{', '"%d":1', "}}", 100_000)),
    Hostile("wrong biases", COMPLETIONS, _numbered('{"prompt":"x","logit_bias":{', '"x%d":1', "}}", 100_000)),
    Hostile("tools", CHAT, _repeated(_CHAT_BEGIN + '"tools":[', "{}", "]}")),
    Hostile("128 tools of 100 properties", CHAT, lambda: json.dumps({
        "messages": [USER], "max_tokens": 1, "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": f"f{number}", "parameters": {"type": "object", "properties":
            {f"p{number}_{index}": {} for index in range(100)}}}} for number in range(128)]}).encode()),
    Hostile("a body of brackets", COMPLETIONS, lambda: b"[" * MEGABYTES_4),
    Hostile("a body of braces", COMPLETIONS, lambda: b'{"a":' * (MEGABYTES_4 // 5)),
    Hostile("a body of quotes", COMPLETIONS, lambda: b'"' * MEGABYTES_4),
    Hostile("a body of backslashes", COMPLETIONS, lambda: b'{"prompt":"' + b"\\" * MEGABYTES_4 + b'"}'),
    Hostile("long numbers", COMPLETIONS, _repeated('{"prompt":[', "9" * 4000, "]}")),
    Hostile("4 MB of one character", COMPLETIONS, lambda: b'{"prompt":"' + b"a" * MEGABYTES_4 + b'"}'),
    Hostile("4 MB of escapes", COMPLETIONS, lambda: b'{"prompt":"' + b"\\u0061" * (MEGABYTES_4 // 6) + b'"}'),
    Hostile("4 MB of marks in a text", COMPLETIONS, lambda: b'{"prompt":"' + b"{[,:" * (MEGABYTES_4 // 4) + b'"}'),
    Hostile("4 MB that are cut", COMPLETIONS, lambda: json.dumps(
        {"prompt": "ab " * (MEGABYTES_4 // 3), "truncate_prompt_tokens": 5, "max_tokens": 1}).encode()),
    Hostile("262,144 characters that are cut", COMPLETIONS, _json(
        prompt="ab " * 87_000, truncate_prompt_tokens=5, max_tokens=1)),
    Hostile("4 MB in a message", CHAT, lambda: json.dumps(
        {"messages": [{"role": "user", "content": "a" * MEGABYTES_4}]}).encode()),
    Hostile("4 MB to tokenize", "/tokenize", lambda: b'{"prompt":"' + b"a" * MEGABYTES_4 + b'"}'),
    Hostile("262,144 ids to text", "/detokenize", _json(tokens=[5] * (1 << 18))),
    Hostile("items of nothing", "/v1/responses", _repeated('{"input":[', "{}", "]}")),
    Hostile("blocks of nothing", "/v1/messages", _repeated(
        '{"max_tokens":1,"messages":[{"role":"user","content":[', "{}", "]}]}")),
    Hostile("messages to count", "/v1/messages/count_tokens", _repeated('{"messages":[', "{}", "]}")),
    Hostile("multipleOf 300007", COMPLETIONS, _schema(_WHOLE | {"multipleOf": 300_007})),
    Hostile("multipleOf 9973", COMPLETIONS, _schema(_WHOLE | {"multipleOf": 9973})),
    Hostile("multiples in allOf", COMPLETIONS, _schema({"allOf": [_WHOLE | {"multipleOf": n} for n in (97, 89, 83)]})),
    Hostile("multiples in anyOf", COMPLETIONS, _schema(
        {"anyOf": [_WHOLE | {"multipleOf": 9000 + number} for number in range(50)]})),
    Hostile("2000 properties", COMPLETIONS, _schema({"properties": {f"p{number}": {} for number in range(2000)}})),
    Hostile("4500 properties", COMPLETIONS, _schema({"properties": {f"p{number}": {} for number in range(4500)}})),
    Hostile("400 patterns of names", COMPLETIONS, _schema(
        {"patternProperties": {f"^a{number}[a-z]*$": {} for number in range(400)}})),
    Hostile("64 patterns of names", COMPLETIONS, _schema(
        {"patternProperties": {f"^a{number}[a-z]*$": {} for number in range(64)}})),
    Hostile("4000 values of an enum", COMPLETIONS, _schema({"enum": [f"word{number}" for number in range(4000)]})),
    Hostile("minItems of a million", COMPLETIONS, _schema({"type": "array", "items": _WHOLE, "minItems": 10**6})),
    Hostile("oneOf of 800", COMPLETIONS, _schema({"oneOf": [
        {"type": "object", "properties": {"k": {"const": number}}, "required": ["k"]} for number in range(800)]})),
    Hostile("1024 choices", COMPLETIONS, _constrained(choice=[f"c{number}" * 10 for number in range(1024)])),
    Hostile("a regex that branches", COMPLETIONS, _constrained(regex="(a|b)*a(a|b){20}")),
    Hostile("a regex of 3000 branches", COMPLETIONS, _constrained(
        regex="|".join(f"a{number}.*b" for number in range(3000)))),
    Hostile("30,000 brackets in a regex", COMPLETIONS, _constrained(regex="(" * 30_000 + "a" + ")" * 30_000)),
    Hostile("repeats in a regex", COMPLETIONS, _constrained(regex="((a{1,1000}){1,1000}){1,1000}")),
    Hostile("2500 rules", COMPLETIONS, _constrained(grammar="start: " + " ".join(f"r{n}" for n in range(2500)) + "\n"
        + "\n".join(f'r{n}: "x{n}"?' for n in range(2500)))),
    Hostile("an ambiguous grammar", COMPLETIONS, _constrained(grammar='start: s\ns: s s | "a" | s s s | ')),
    Hostile("prompt_logprobs of 2000 tokens", COMPLETIONS, _json(prompt=[5] * 2000, max_tokens=1, prompt_logprobs=20)),
    Hostile("prompt_logprobs of 100 prompts", COMPLETIONS, _json(
        prompt=[[5] * 2000] * 100, max_tokens=1, prompt_logprobs=20)),
    Hostile("logprobs of 128 completions", COMPLETIONS, _json(prompt="x", max_tokens=16, n=128, logprobs=20)),
    Hostile("8 MB of headers", "/health", lambda: b"", {"x": "y" * (8 << 20)}),
    Hostile("20,000 headers", "/health", lambda: b"", {f"x{number}": "y" for number in range(20_000)}),
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The figures of one request, in seconds."""

    status: int
    """0 if the server closed the connection without an answer."""
    seconds: float
    stream_gap: float
    health: float
    message: str = ""


def rendered(asked: Hostile) -> bytes:
    """The request as it goes over the socket. Its connection is closed after the answer."""
    content = asked.body()
    lines = [f"{'POST' if content else 'GET'} {asked.path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def send(address: tuple[str, int], request: bytes) -> tuple[int, str]:
    """Status and body of the answer to a rendered request; status 0 if the connection was closed."""
    parts: list[bytes] = []
    try:
        with socket.create_connection(address, timeout=_PATIENCE_SECONDS) as connection:
            with suppress(ConnectionError):  # the answer may precede the end of the body
                connection.sendall(request)
            while part := connection.recv(1 << 18):
                parts.append(part)
    except OSError as error:
        if not parts:
            return 0, str(error)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]) if head else 0), body.decode(errors="replace")


class _Beside:
    """A caller that reads a stream, and one that asks for /health, with the times of what they got."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.events: list[float] = []
        self.answers: list[tuple[float, float]] = []
        """Begin and end of each answer of /health."""
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._stream, self._ask)]

    def _stream(self) -> None:
        while not self._is_over.is_set():
            body = {"prompt": "x = [", "max_tokens": 1900, "ignore_eos": True, "stream": True, "temperature": 0}
            connection = http.client.HTTPConnection(*self._address, timeout=_PATIENCE_SECONDS)
            connection.request("POST", COMPLETIONS, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            while not self._is_over.is_set() and (line := answer.readline()):
                if line.startswith(b"data: {"):
                    self.events.append(time.perf_counter())
            connection.close()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=_PATIENCE_SECONDS)
        while not self._is_over.is_set():
            begin = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            self.answers.append((begin, time.perf_counter()))
            time.sleep(0.01)
        connection.close()

    def __enter__(self) -> "_Beside":
        for thread in self._threads:
            thread.start()
        while len(self.events) < 20:
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def longest(self, begin: float, end: float) -> tuple[float, float]:
        """The longest time between two events, and the longest answer of /health, that touch begin … end."""
        events = [begin, *(moment for moment in list(self.events) if begin <= moment <= end), end]
        gaps = [later - earlier for earlier, later in pairwise(events)]
        answers = [stop - start for start, stop in list(self.answers) if stop >= begin and start <= end]
        return max(gaps), max(answers, default=end - begin)


def measure(address: tuple[str, int], asked: Hostile | None) -> Outcome:
    """The figures of one request, or of a second that has no request in it."""
    request = b"" if asked is None else rendered(asked)  # now: making it takes time of the callers beside it
    with _Beside(address) as beside:
        begin = time.perf_counter()
        status, message = (200, "") if asked is None else send(address, request)
        answered = time.perf_counter()
        time.sleep(1.0 if asked is None else 0.25)
        gap, health = beside.longest(begin, time.perf_counter())
    return Outcome(status=status, seconds=answered - begin, stream_gap=gap, health=health, message=message)


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, int]]:
    """A server of the zoo's target with its drafter on a free port; its address."""
    command = [sys.executable, "-c", _COMMAND, "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.match(r"Ready on http://(.+):(\d+)", line):
                yield found[1], int(found[2])
                break
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def _saved(name: str, rows: list[str]) -> Path:
    """Writes results/<name>.md, with what it was measured on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    command = f"PYTHONPATH=src python3 -m benchmarks.hostile_requests --save {name}"
    head = [
        "# The worst requests that are known, and what they hold up",
        "",
        f"{datetime.date.today():%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load averages at the end "
        f"{load}, Python {platform.python_version()}. Command: `{command}`",
        "",
        "The zoo's target with its EAGLE-3 head and the server's default options. Each request is sent alone beside "
        "one stream; the first row has no request beside it.",
        "",
    ]
    path = Path(__file__).parent / "results" / f"{name}.md"
    path.write_text("\n".join([*head, *rows, ""]))
    return path


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="Names that contain this text.")
    parser.add_argument("--save", help="Name of a file in benchmarks/results.")
    arguments = parser.parse_args()
    asked = [entry for entry in REQUESTS if arguments.only is None or arguments.only in entry.name]
    rows = [
        "| request | status | s to the answer | longest gap of the stream, ms | longest /health, ms |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(rows), flush=True)
    with serving() as address:
        for entry in (None, *asked):
            outcome = measure(address, entry)
            name = entry.name if entry is not None else "nothing beside"
            figures = f"{outcome.seconds:.2f} | {outcome.stream_gap * 1e3:.0f} | {outcome.health * 1e3:.0f}"
            rows.append(f"| {name} | {outcome.status} | {figures} |")
            print(rows[-1], flush=True)
    if arguments.save is not None:
        print(_saved(arguments.save, rows))


if __name__ == "__main__":
    main()
