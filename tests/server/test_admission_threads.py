"""Work before the engine: callers take turns, and work of callers who have left is not begun."""

import asyncio
import threading
import time

import pytest

from outrider.server.admission_threads import AdmissionThreads


async def until_begun(begun: list[str], count: int) -> None:
    end = time.monotonic() + 30
    while len(begun) < count:
        assert time.monotonic() < end, begun
        await asyncio.sleep(0.001)


def test_callers_take_turns_whatever_the_number_of_their_requests() -> None:
    begun, may_end = [], threading.Event()

    def work(name: str) -> str:
        begun.append(name)
        assert may_end.wait(30)
        return name

    async def run() -> list[str]:
        threads = AdmissionThreads(1)
        names = ["a0", "a1", "a2", "a3", "b0", "c0", "b1"]
        tasks = [
            asyncio.create_task(threads.run(lambda name=name: work(name), caller=name[0]))  # type: ignore[misc]
            for name in names
        ]
        await until_begun(begun, 1)
        assert threads.num_waiting == len(names) - 1
        may_end.set()
        results = await asyncio.gather(*tasks)
        assert threads.num_waiting == 0
        threads.shutdown()
        assert results == names
        return begun

    assert asyncio.run(run()) == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]


def test_work_of_a_caller_who_left_is_not_begun() -> None:
    begun, may_end = [], threading.Event()

    def first() -> None:
        begun.append("first")
        assert may_end.wait(30)

    async def run() -> None:
        threads = AdmissionThreads(1)
        running = asyncio.create_task(threads.run(first))
        await until_begun(begun, 1)
        left = asyncio.create_task(threads.run(lambda: begun.append("left")))
        stays = asyncio.create_task(threads.run(lambda: begun.append("stays")))
        await asyncio.sleep(0)
        left.cancel()
        may_end.set()
        await asyncio.gather(running, stays)
        assert left.cancelled()
        threads.shutdown()

    asyncio.run(run())
    assert begun == ["first", "stays"]


def test_several_run_at_once_and_an_error_is_that_of_its_caller() -> None:
    both = threading.Barrier(2, timeout=30)

    def fails() -> None:
        both.wait()
        raise ValueError("no")

    async def run() -> None:
        threads = AdmissionThreads(2)
        good, bad = asyncio.create_task(threads.run(both.wait)), asyncio.create_task(threads.run(fails))
        with pytest.raises(ValueError, match="no"):
            await bad
        assert await good in (0, 1)
        assert await threads.run(lambda: 5) == 5, "a thread is free again after an error"
        threads.shutdown()

    asyncio.run(run())
