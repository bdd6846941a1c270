"""Admission in front of the engine, without one: room is taken before anything is done for a caller."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from outrider import ConfigError, EngineDeadError, RequestError, SamplingParams
from outrider.core.config import engine_config
from outrider.engine.admission import Admission
from outrider.engine.messages import EngineInfo
from outrider.server.admission_threads import NUM_THREADS
from outrider.server.errors import APIError
from outrider.server.front import Front
from outrider.server.options import ServerOptions
from tests.support.log_lines import log_lines

ONE = SamplingParams(max_tokens=1)


class NoEngine:
    """Alive, and never given anything here."""

    is_alive = True

    async def stop(self) -> None:
        self.is_alive = False

    async def start(self) -> None:
        raise EngineDeadError("no memory is left")


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    """KVBudget for three completions."""
    front = Front(engine_config("none"), ServerOptions(max_queued_requests=1, max_engine_restarts=1))
    monkeypatch.setattr(front, "client", NoEngine())
    front.info = EngineInfo(
        process_id=0, description=[], vocab_size=1, max_model_len=1, max_num_seqs=2, eos_token_ids=(), num_blocks=1,
        is_exact=True,
    )  # fmt: skip
    return front


def test_a_prompt_is_not_made_where_there_is_no_room_for_it(front: Front) -> None:
    made, may_go_on = [], threading.Event()

    def slow() -> Any:
        made.append("slow")
        assert may_go_on.wait(30)
        raise RequestError("this prompt cannot be made")

    def never() -> Any:
        made.append("never")

    async def run() -> None:
        first = asyncio.create_task(front.submit(slow, SamplingParams(max_tokens=1, n=2), count=1))
        await asyncio.sleep(0)
        for count, params in ((2, ONE), (1, SamplingParams(max_tokens=1, n=2))):
            with pytest.raises(APIError, match="2 completions run or wait, of at most 3") as refusal:
                await front.submit(never, params, count=count)
            assert refusal.value.status == 429 and refusal.value.headers == {"Retry-After": "1"}
        may_go_on.set()
        with pytest.raises(RequestError, match="cannot be made"):
            await first
        with pytest.raises(RequestError, match="cannot be made"):  # what failed gave its room back
            await front.submit(slow, ONE, count=3)

    asyncio.run(run())
    assert made == ["slow", "slow"]


def test_a_front_that_drains_takes_nothing(front: Front) -> None:
    async def run() -> None:
        assert await front.drain()
        with pytest.raises(APIError, match="shutting down") as refusal:
            await front.submit(list, ONE, count=1)
        assert refusal.value.status == 503

    asyncio.run(run())


def test_an_engine_that_cannot_be_restarted_is_logged(front: Front) -> None:
    async def run() -> None:
        front._on_death()
        assert front._restart is not None
        await front._restart
        assert not front.is_healthy
        with pytest.raises(APIError, match="Restart the server") as refusal:
            await front.submit(list, ONE, count=1)
        assert refusal.value.status == 503

    with log_lines() as lines:
        asyncio.run(run())
    assert lines == [
        "WARNING outrider.server.front: restarting the engine: 1 of 1",
        "ERROR outrider.server.front: the engine could not be restarted: no memory is left",
    ]


def request_of(caller: str, *, leaves: asyncio.Event | None = None) -> Request:
    """A request whose body was read; its caller disconnects when `leaves` is set."""

    async def receive() -> dict[str, Any]:
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": [], "client": (caller, 1)}, receive)


def test_work_that_waits_counts_towards_429_and_callers_who_left_are_not_worked_for(front: Front) -> None:
    may_go_on, done = threading.Event(), []

    def slow() -> None:
        assert may_go_on.wait(30)

    async def run() -> None:
        leaves = asyncio.Event()
        running = [asyncio.create_task(front.aside(slow, request_of("a"))) for _ in range(NUM_THREADS)]
        while front._threads.num_waiting or front._threads._num_free:
            await asyncio.sleep(0.001)
        waiting = [asyncio.create_task(front.aside(lambda: done.append("stays"), request_of("a"))) for _ in range(2)]
        left = asyncio.create_task(front.aside(lambda: done.append("left"), request_of("b", leaves=leaves)))
        await asyncio.sleep(0.01)
        with pytest.raises(APIError, match="3 requests wait to be read, of at most 3") as refusal:
            await front.aside(lambda: done.append("never"), request_of("c"))
        assert refusal.value.status == 429 and refusal.value.headers == {"Retry-After": "1"}
        inner = asyncio.create_task(front.aside(lambda: done.append("inner")))  # of a request that was admitted
        await asyncio.sleep(0)
        leaves.set()
        with pytest.raises(APIError, match="disconnected"):
            await left
        may_go_on.set()
        await asyncio.gather(*running, *waiting, inner)
        await front.stop()

    asyncio.run(run())
    assert sorted(done) == ["inner", "stays", "stays"]


def test_a_restart_without_descriptors_is_tried_again(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.server.front._RETRY_SECONDS", (0.0, 0.0))
    failures: list[Exception] = [OSError(24, "Too many open files"), OSError(12, "Cannot allocate memory")]

    async def start() -> None:
        if failures:
            raise failures.pop(0)
        front.client.is_alive = True  # type: ignore[misc]

    monkeypatch.setattr(front.client, "start", start)

    async def run() -> None:
        front._on_death()
        assert front._restart is not None
        await front._restart

    with log_lines() as lines:
        asyncio.run(run())
    assert front.is_healthy and not failures
    assert [line.partition("front: ")[2] for line in lines] == [
        "restarting the engine: 1 of 1",
        "the engine could not be restarted: [Errno 24] Too many open files; next try in 0 s",
        "the engine could not be restarted: [Errno 12] Cannot allocate memory; next try in 0 s",
    ]


def with_headers(*headers: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "headers": list(headers), "client": ("a", 1)})


def test_each_key_has_a_prefix_cache_of_its_own_where_there_are_several(front: Front) -> None:
    bearer = with_headers((b"authorization", b"Bearer one"))
    assert front._salts(bearer, None) == [], "one key or none: callers share"
    front.options = ServerOptions(api_keys=("one", "two"))
    one = front._salts(bearer, None)
    assert len(one) == 1
    assert front._salts(with_headers((b"x-api-key", b"one")), None) == one
    wrong_too = with_headers((b"authorization", b"Bearer else"), (b"x-api-key", b"one"))
    assert front._salts(wrong_too, None) == one, "what is no key makes no cache of its own"
    assert front._salts(with_headers((b"x-api-key", b"two")), None) != one
    salted = front._salts(bearer, "s")
    assert len(salted) == 2 and set(one) < set(salted)
    assert front._salts(bearer, "t") != salted


def test_priorities_are_taken_where_the_operator_allows_them(front: Front) -> None:
    def never() -> Any:
        raise RequestError("this prompt is made")

    async def run() -> None:
        params = SamplingParams(priority=-1)
        with pytest.raises(APIError, match="priority=-1 is refused") as refusal:
            await front.submit(never, params, count=1)
        assert refusal.value.status == 400 and refusal.value.param == "priority"
        front.options = ServerOptions(scheduling_policy="priority")
        with pytest.raises(RequestError, match="this prompt is made"):
            await front.submit(never, params, count=1)
        await front.stop()

    asyncio.run(run())
    with pytest.raises(ConfigError, match="scheduling_policy='lifo' is not known"):
        ServerOptions(scheduling_policy="lifo")


def test_log_probabilities_of_all_prompts_are_bounded_together(front: Front) -> None:
    front.info = replace(front.info, vocab_size=10, max_model_len=5000)
    front._admission = Admission(tokenizer=None, vocab_size=10, max_model_len=5000, eos_token_ids=(), seed=0)
    prompt = {"prompt_token_ids": [1] * 4096}
    params = SamplingParams(max_tokens=1, prompt_logprobs=15)
    assert len(front._requests([prompt] * 4, params, [])) == 4
    with pytest.raises(RequestError, match="prompt_logprobs=15 of all prompts are 327680 log-probabilities"):
        front._requests([prompt] * 5, params, [])
    assert len(front._requests([prompt] * 5, ONE, [])) == 5
