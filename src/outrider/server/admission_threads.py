"""Threads for work that a request needs before the engine gets it: parsing, templates, tokenizing, grammars.

Callers take turns, whatever the number of their requests. Work of callers who have left is not begun.
"""

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

NUM_THREADS = min(4, max(2, os.cpu_count() or 1))
"""More would share the same interpreter; most of the work is in libraries that release its lock."""


class AdmissionThreads:
    """A few threads, and the work that waits for one of them, by caller. Used in one event loop."""

    def __init__(self, num_threads: int = NUM_THREADS) -> None:
        self._executor = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="admission")
        self._num_free = num_threads
        self._waiting: OrderedDict[Hashable, deque[tuple[Callable[[], Any], asyncio.Future[Any]]]] = OrderedDict()
        self.num_waiting = 0
        """Pieces of work that no thread has begun."""

    async def run(self, work: Callable[[], Result], *, caller: Hashable = None) -> Result:
        """Runs `work` in a thread once it is this caller's turn, and returns its result or raises its error. If the
        task that waits here is cancelled first, the work is never begun."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append((work, future))
        self.num_waiting += 1
        self._begin()
        return await future

    def _begin(self) -> None:
        while self._num_free > 0 and self._waiting:
            caller, pieces = self._waiting.popitem(last=False)
            work, future = pieces.popleft()
            self.num_waiting -= 1
            if pieces:
                self._waiting[caller] = pieces  # behind all other callers
            if not future.cancelled():
                self._num_free -= 1
                asyncio.get_running_loop().create_task(self._finish(work, future))

    async def _finish(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        result, failure = None, None
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except Exception as error:
            failure = error
        finally:
            self._num_free += 1
            self._begin()
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    def shutdown(self) -> None:
        """Begins nothing more. Does not wait for work that has begun."""
        self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)
