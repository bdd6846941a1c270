"""Two thousand hostile bodies: each is refused with an error that names the field, and no other request notices.

Beside them run seeded streams; each must give the bytes that it gave when it was alone.
"""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.support.server_under_test import ServerUnderTest

from .refused_bodies import Bad, bodies

CODE = "def merge_sort(items):\n    " + '"""Sort a list with the merge sort algorithm."""\n'
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": CODE, "temperature": 0, "max_tokens": 24}),
    ("/v1/completions", {"prompt": CODE, "temperature": 0.9, "seed": 5, "max_tokens": 24, "min_p": 0.02}),
    (
        "/v1/completions",
        {"prompt": [7, 8, 9], "temperature": 1, "seed": 6, "max_tokens": 24, "num_speculative_tokens": 0},
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": "A boat carries 25 people on every trip. It makes 4 trips. How many?"}
            ],
            "temperature": 0.7,
            "seed": 7,
            "max_tokens": 24,
            "logprobs": True,
            "top_logprobs": 2,
        },
    ),
]
MAX_ANSWER = 16_384
"""Bytes; an error may not repeat what it refuses."""


class Caller:
    """A connection that is kept while the server keeps it."""

    def __init__(self, server: ServerUnderTest) -> None:
        self._server = server
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._server.address, timeout=120)
        try:
            self._connection.request("POST", path, content, headers)
            answer = self._connection.getresponse()
            found = answer.status, answer.read()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            self.close()  # a body that is too long may be refused before it has been sent
            return 0, b""
        return found

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def streamed(caller: Caller, path: str, fields: dict[str, Any]) -> list[Any]:
    """The chunks of a stream without the fields that differ from call to call."""
    body = {**fields, "stream": True, "return_token_ids": True}
    status, content = caller.post(path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert status == 200, content
    events = content.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    whole: dict[str, Any] = {"text": "", "ids": [], "finish": None, "logprobs": []}
    for event in events[:-2]:
        (choice,) = json.loads(event.removeprefix("data: "))["choices"]
        whole["text"] += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        whole["ids"] += choice.get("token_ids", [])
        whole["finish"] = choice["finish_reason"]
        whole["logprobs"] += ((choice.get("logprobs") or {}).get("content")) or []
    return [whole]


def refuse(caller: Caller, bad: Bad) -> str | None:
    """A description of what is wrong with the refusal, or None."""
    status, content = caller.post(bad.path, bad.content, bad.headers)
    if status == 0 and len(bad.content) > 1 << 20:
        return None
    if not 400 <= status < 500:
        return f"status {status}: {content[:200]!r}"
    if len(content) > MAX_ANSWER:
        return f"an answer of {len(content)} bytes"
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no error in OpenAI's form: {content[:200]!r}"
    if error.keys() != {"message", "type", "param", "code"}:
        return f"keys {sorted(error)}"
    said = f"{error['param']} {error['message']}"
    if not any(name in said for name in bad.names):
        return f"none of {bad.names} in {said[:300]!r}"
    return None


def check(server: ServerUnderTest, *, seed: int, count: int) -> None:
    """Attack the server while streams run."""
    with closing(Caller(server)) as caller:
        alone = [streamed(caller, *stream) for stream in STREAMS]
    assert all(len(found[0]["ids"]) > 3 for found in alone)
    is_over = threading.Event()

    def run_streams(index: int) -> int:
        rounds = 0
        with closing(Caller(server)) as mine:
            while not is_over.is_set() or rounds == 0:
                assert streamed(mine, *STREAMS[index]) == alone[index], (
                    f"stream {index} was disturbed in round {rounds}"
                )
                rounds += 1
        return rounds

    queue = bodies(seed, count)
    lock = threading.Lock()
    wrong: list[str] = []

    def attack() -> int:
        sent = 0
        with closing(Caller(server)) as mine:
            while True:
                with lock:
                    bad = next(queue, None)
                if bad is None:
                    return sent
                problem = refuse(mine, bad)
                if problem is not None:
                    wrong.append(f"{bad.what}\n    {problem}")
                sent += 1

    with ThreadPoolExecutor(len(STREAMS) + 4) as pool:
        streams = [pool.submit(run_streams, index) for index in range(len(STREAMS))]
        try:
            assert sum(attacker.result() for attacker in [pool.submit(attack) for _ in range(4)]) == count
        finally:
            is_over.set()
        rounds = [stream.result() for stream in streams]
    print(f"{count} bodies refused beside {rounds} rounds of the streams")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:40])
    with closing(Caller(server)) as caller:
        assert [streamed(caller, *stream) for stream in STREAMS] == alone
    assert server.process.poll() is None


def test_hostile_bodies_are_refused_by_name_and_disturb_nobody(server: ServerUnderTest) -> None:
    check(server, seed=1, count=300)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 7))
def test_many_hostile_bodies(server: ServerUnderTest, seed: int) -> None:
    check(server, seed=seed, count=2000)


def test_the_bodies_are_the_same_for_the_same_seed_and_of_every_kind() -> None:
    one, other = [list(bodies(3, 600)) for _ in range(2)]
    assert one == other != list(bodies(4, 600))
    assert len({bad.content for bad in one}) > 450
    assert {bad.path for bad in one} == {
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
    }
