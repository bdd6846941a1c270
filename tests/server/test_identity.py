"""Exactness through the server: a seeded request gives the same bytes alone and in a crowd, with speculation and
without, streamed and whole, and they are those of a plain engine in this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.core.zoo import shipped
from tests.support.http_calls import events, post, post_all
from tests.support.server_under_test import ServerUnderTest, serve

STARTS = ("def area(r):\n", "import os\n", "Question: Tom has 4 pens and buys 5.\nAnswer:", "class Stack:\n", "#")


def body(index: int) -> dict[str, Any]:
    """One of the crowd: greedy or not, long or short, with penalties, log-probabilities, truncation."""
    asked: dict[str, Any] = {
        "prompt": STARTS[index % len(STARTS)] * (1 + index % 3),
        "max_tokens": 8 + index % 17,
        "seed": index * 1_000_003,
        "temperature": (0.0, 0.7, 1.0, 1.3)[index % 4],
        "return_token_ids": True,
    }
    if index % 5 == 1:
        asked |= {"top_p": 0.9, "min_p": 0.02}
    if index % 7 == 2:
        asked |= {"frequency_penalty": 0.8, "repetition_penalty": 1.2}
    if index % 11 == 3:
        asked |= {"logprobs": 4}
    return asked


@dataclass(frozen=True)
class Crowd:
    """A server and the requests that it gets at once."""

    server: ServerUnderTest
    size: int
    has_digests: bool


@pytest.fixture(scope="module", params=["tokens of 24", pytest.param("digests of 64", marks=pytest.mark.slow)])
def crowd(request: pytest.FixtureRequest, server: ServerUnderTest) -> Iterator[Crowd]:
    if request.param == "tokens of 24":
        yield Crowd(server, 24, has_digests=False)
        return
    with serve("--logits-digest", "--max-num-seqs", "64") as started:
        yield Crowd(started, 64, has_digests=True)


@pytest.fixture(scope="module")
def alone(crowd: Crowd) -> list[Any]:
    """The choices of five of the requests, each asked for while nothing else runs."""
    return [choices(post(crowd.server, "v1/completions", body(index))) for index in range(5)]


def choices(answer: tuple[int, Any, dict[str, str]]) -> Any:
    status, found, _ = answer
    assert status == 200, found
    return found["choices"]


def test_alone_and_among_many_others(crowd: Crowd, alone: list[Any]) -> None:
    bodies = [body(index) for index in range(crowd.size)]
    found = [choices(answer) for answer in post_all(crowd.server, "v1/completions", bodies)]
    assert found[: len(alone)] == alone
    again = [asked | {"num_speculative_tokens": 0} for asked in reversed(bodies)]
    plain = [choices(answer) for answer in post_all(crowd.server, "v1/completions", again)]
    assert plain[::-1] == found
    assert all(bool(choice.get("logits_digest")) == crowd.has_digests for (choice,) in found)


def test_streams_say_the_same(crowd: Crowd, alone: list[Any]) -> None:
    bodies = [body(i) | {"stream": True} for i in range(len(alone))] + [body(i) for i in range(20, 40)]
    for (whole,), (status, text, _) in zip(alone, post_all(crowd.server, "v1/completions", bodies), strict=False):
        assert status == 200
        found = [chunk["choices"][0] for chunk in events(text)]
        assert "".join(choice["text"] for choice in found) == whole["text"]
        assert list(chain.from_iterable(choice["token_ids"] for choice in found)) == whole["token_ids"]
        assert found[-1].get("logits_digest") == whole.get("logits_digest")
        assert found[-1]["finish_reason"] == whole["finish_reason"]


def test_a_plain_engine_says_the_same(crowd: Crowd, alone: list[Any]) -> None:
    llm = LLM(shipped("tiny"), logits_digest=crowd.has_digests)
    for index, (choice,) in enumerate(alone):
        asked = {name: value for name, value in body(index).items() if name not in ("prompt", "return_token_ids")}
        (output,) = llm.generate(body(index)["prompt"], SamplingParams(**asked))[0].outputs
        assert (output.token_ids, output.text) == (choice["token_ids"], choice["text"])
        assert output.logits_digest == choice.get("logits_digest")
