"""`AsyncLLM`: the engine behind asyncio. Each request is an asynchronous iterator over its deltas, step by step.

The engine's loop (`engine/loop.py`) runs in its own thread; only that thread touches the engine. Knows nothing of
HTTP: the server runs the same loop in its own process.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from outrider.core import log
from outrider.core.config import engine_config
from outrider.core.outputs import OutputDelta
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Prompt
from outrider.engine.engine import Engine
from outrider.engine.loop import EngineLoop, Order, StopLoop, Tell
from outrider.engine.stats import EngineStats

Result = TypeVar("Result")


class _Orders:
    """The thread's inbox; None in it is the order to stop."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self.put = self._queue.put

    def get(self, *, block: bool) -> Order | None:
        try:
            order = self._queue.get(block=block)
        except queue.Empty:
            return None
        if order is None:
            raise StopLoop
        return order

    def rest(self) -> list[Order]:
        """Orders that came after the order to stop."""
        orders = []
        while not self._queue.empty():
            order = self._queue.get()
            if order is not None:
                orders.append(order)
        return orders


class AsyncLLM:
    """A model with an optional drafter for many callers at once; options are those of `LLM`.

    Use it as `async with`, or call `shutdown`.
    """

    def __init__(self, model: str, *, skip_tokenizer_init: bool = False, **options: Any) -> None:
        log.configure_from_environment()
        self.engine = Engine(engine_config(model, **options), skip_tokenizer_init=skip_tokenizer_init)
        self._loop = EngineLoop(self.engine)
        self._orders = _Orders()
        self._names = itertools.count()
        self._thread = threading.Thread(target=self._run, name="outrider-engine", daemon=True)
        self._thread.start()

    def get_default_sampling_params(self) -> SamplingParams:
        """The parameters of a request without any: those that generation_config.json recommends, as in `LLM`."""
        return self.engine.sampling_defaults.params()

    async def generate(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> AsyncIterator[OutputDelta]:
        """Deltas of one request; the last one holds the whole output. Leaving the iterator early aborts the request.

        Raises RequestError if the request cannot be served, before anything runs.
        """
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[OutputDelta | BaseException] = asyncio.Queue()
        params = sampling_params or self.get_default_sampling_params()

        def tell(delta: OutputDelta | BaseException) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, delta)

        name = request_id if request_id is not None else f"async-{next(self._names)}"
        is_over = False
        try:
            await self._order(lambda: self._submit(prompt, params, name, tell))
            while not is_over:
                delta = await deltas.get()
                if isinstance(delta, BaseException):
                    raise delta
                is_over = delta.output is not None
                yield delta
        finally:
            if not is_over:
                self._orders.put(lambda: self._loop.leave(name, tell))

    async def abort(self, request_id: str) -> None:
        """Abort a request; its iterator ends with finish_reason "abort"."""
        await self._order(lambda: self.engine.abort(request_id))

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return await self._order(self.engine.stats)

    def shutdown(self) -> None:
        """Stop the engine; requests that still run end with an error."""
        self._orders.put(None)
        self._thread.join()

    async def __aenter__(self) -> "AsyncLLM":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.shutdown()

    async def _order(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the engine's thread, and return its result or raise its error."""
        if self._loop.is_over:
            raise self._loop.ending() from self._loop.failed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(set_it: Callable[[Any], None], value: Any) -> None:
            if not future.done():  # its caller may have been cancelled
                set_it(value)

        def run() -> None:
            try:
                if self._loop.is_over:
                    raise self._loop.ending()
                result = work()
            except Exception as error:
                loop.call_soon_threadsafe(settle, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, future.set_result, result)

        self._orders.put(run)
        return await future

    def _submit(self, prompt: Prompt, params: SamplingParams, name: str, tell: Tell) -> None:
        self._loop.submit(self.engine.new_request(prompt, params, request_id=name), tell)

    def _run(self) -> None:
        self._loop.run(self._orders)
        for order in self._orders.rest():
            order()
