"""The worst requests that are known, against a server that serves others: none is a fault, and no work is done twice.

Their effect on other callers is measured by `benchmarks/hostile_requests.py`; here is what does not depend on times.
"""

import json
from collections.abc import Iterator

import pytest

from benchmarks.hostile_requests import REQUESTS, Hostile, rendered, send
from tests.support.running_server import RunningServer

from .streaming_callers import all_at_once, body_of
from .test_reliability import check_nothing_is_held, check_whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SERVED = {
    "256 prompts of 1000 ids", "262,144 allowed ids", "262,144 characters that are cut", "multipleOf 9973",
    "2000 properties", "64 patterns of names", "4000 values of an enum", "minItems of a million", "1024 choices",
    "a regex that branches", "a regex of 3000 branches", "repeats in a regex", "an ambiguous grammar",
    "prompt_logprobs of 2000 tokens", "logprobs of 128 completions",
}  # fmt: skip
"""Large, and within the limits."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer() as running:
        yield running


def test_there_are_enough_of_them() -> None:
    names = [asked.name for asked in REQUESTS]
    assert len(names) == len(set(names)) >= 40 and set(names) >= SERVED


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda asked: asked.name)
def test_it_is_refused_by_name_or_served(server: RunningServer, asked: Hostile) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    status, text = send((host, int(port)), rendered(asked))
    if asked.name in SERVED:
        assert status == 200, text[:500]
    elif asked.path == "/health":
        assert status in (0, 431)  # a client that still sends may not read the answer
    else:
        assert 400 <= status < 500, text[:500]
        answer = json.loads(text)
        assert len(answer["error"]["message"]) < 2000
    assert server.get("/health")[0] == 200


def test_afterwards_nothing_is_held_and_an_answer_is_what_it_was(server: RunningServer) -> None:
    body = body_of(prompt="def g(", max_tokens=9)
    (told,) = all_at_once(server.url, [body])
    check_whole(told, body)
    counts = check_nothing_is_held(server)
    assert counts["num_requests_waiting"] == 0
    assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
