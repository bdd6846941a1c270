"""Admission in front of the engine, without one: room is taken before anything is done for a caller."""

import asyncio
import threading
from typing import Any

import pytest

from outrider import EngineDeadError, RequestError, SamplingParams
from outrider.core.config import engine_config
from outrider.engine.messages import EngineInfo
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
