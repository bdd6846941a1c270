"""The engine's client without its process: a slow reader costs the others nothing, and loses nothing."""

import asyncio
import socket
from array import array

import pytest

from outrider.core.errors import EngineDeadError
from outrider.core.outputs import Logprob, OutputDelta, RequestOutput, SpeculationStats
from outrider.core.pooling import PoolingOutput, PoolingRequestOutput
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.channel import Channel
from outrider.engine.client import Job


def request(name: str) -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=(1, 2),
        params=SamplingParams(),
        seed=0,
        eos_token_ids=(),
        max_total_tokens=10,
    )


def output(name: str) -> RequestOutput:
    return RequestOutput(
        request_id=name,
        prompt=None,
        prompt_token_ids=[1, 2],
        outputs=[],
        seed=0,
        num_cached_tokens=0,
        num_preemptions=0,
        speculation=SpeculationStats(),
    )


def delta(name: str, token_id: int, *, index: int = 0, is_last: bool = False) -> OutputDelta:
    return OutputDelta(
        request_id=name,
        index=index,
        text=chr(token_id),
        token_ids=[token_id],
        is_draft=[token_id % 2 == 0],
        draft_counts=(token_id, 0, 0),
        logprobs=[{token_id: Logprob(logprob=-1.0, rank=1)}],
        finish_reason="length" if is_last else None,
        output=output(name) if is_last else None,
    )


def test_what_nobody_takes_is_merged() -> None:
    left: list[str] = []
    ended: list[str] = []

    async def scenario() -> None:
        job = Job([request("a"), request("b")], left.append)
        job.on_request_over = lambda entry: ended.append(entry.request_id)
        for name in "ab":
            job.set_added(name)
        await job.admitted()
        for token_id in range(65, 91):
            job.put(delta("a", token_id, is_last=token_id == 90))
            job.put(delta("b", token_id, index=1))
        first, second = await job.take()
        assert first.text == "".join(chr(token_id) for token_id in range(65, 91)) == second.text
        assert first.token_ids == list(range(65, 91)) and len(first.logprobs or []) == len(first.is_draft) == 26
        assert first.draft_counts == (90, 0, 0) and first.output is not None and first.finish_reason == "length"
        assert (second.index, second.output) == (1, None)
        assert ended == ["a"]
        waiting = asyncio.create_task(job.take())
        await asyncio.sleep(0)
        job.close()
        assert await waiting == []

    asyncio.run(scenario())
    assert left == ["b"] and ended == ["a", "b"]


def test_pooled_outputs_come_in_the_order_of_the_requests() -> None:
    def pooled(name: str) -> PoolingRequestOutput:
        numbers = PoolingOutput(values=array("f", [1.0]), shape=(1,))
        return PoolingRequestOutput(request_id=name, prompt_token_ids=[1, 2], outputs=numbers)

    async def scenario() -> None:
        ended: list[str] = []
        job = Job([request("a"), request("b")], lambda name: None)
        job.on_request_over = lambda entry: ended.append(entry.request_id)
        waiting = asyncio.create_task(job.pooled())
        await asyncio.sleep(0)
        job.put_pooled(pooled("b"))
        await asyncio.sleep(0)
        assert not waiting.done()
        job.put_pooled(pooled("a"))
        assert [output.request_id for output in await waiting] == ["a", "b"] and ended == ["b", "a"]
        late = Job([request("c")], lambda name: None)
        late.fail(EngineDeadError("gone"))
        with pytest.raises(EngineDeadError, match="gone"):
            await late.pooled()
        left = Job([request("d")], lambda name: None)
        left.close()
        assert await left.pooled() == []

    asyncio.run(scenario())


def test_what_came_before_an_error_is_given_before_it() -> None:
    async def scenario() -> None:
        job = Job([request("a")], lambda name: None)
        job.set_added("a")
        job.put(delta("a", 65))
        job.fail(EngineDeadError("gone"))
        assert [entry.text for entry in await job.take()] == ["A"]
        with pytest.raises(EngineDeadError, match="gone"):
            await job.take()

    asyncio.run(scenario())


def test_a_channel_never_waits_and_loses_nothing() -> None:
    left, right = socket.socketpair()
    ours, theirs = Channel(left), Channel(right)
    messages = [(number, bytes(number * 997 % 90_000)) for number in range(400)]
    for message in messages:
        ours.send(message)  # 18 MB: far more than the kernel holds
    assert ours.has_backlog
    found = []
    while len(found) < len(messages):
        found += theirs.receive()
        ours.flush()
    assert found == messages and not ours.has_backlog
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()
    with pytest.raises(OSError):
        theirs.send("nobody is there")
    theirs.close()
