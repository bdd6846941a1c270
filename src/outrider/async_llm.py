"""`AsyncLLM`: the engine behind asyncio. Each request is an asynchronous iterator of what it adds, step by step.

The engine runs in a thread of its own; only that thread touches it. Knows nothing of HTTP.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from outrider.core.config import engine_config
from outrider.core.errors import OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Prompt
from outrider.engine.engine import Engine

Result = TypeVar("Result")
Tell = Callable[[OutputDelta | BaseException], None]


class AsyncLLM:
    """A model with an optional drafter for many callers at once; options are those of `LLM`.

    Use it as `async with`, or call `shutdown`.
    """

    def __init__(self, model: str, *, skip_tokenizer_init: bool = False, **options: Any) -> None:
        self.engine = Engine(engine_config(model, **options), skip_tokenizer_init=skip_tokenizer_init)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._is_over = False
        self._failed: BaseException | None = None
        self._callers: dict[str, Tell] = {}  # by request id; the engine's thread alone changes it
        self._names = itertools.count()
        self._thread = threading.Thread(target=self._run, name="outrider-engine", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> AsyncIterator[OutputDelta]:
        """Deltas of one request; the last one holds the whole output. Leaving the iterator early aborts the request.

        Raises RequestError for what cannot be served, before anything runs.
        """
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[OutputDelta | BaseException] = asyncio.Queue()
        params = sampling_params or SamplingParams()

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
                self._orders.put(lambda: self._leave(name, tell))

    async def abort(self, request_id: str) -> None:
        """Take a request back; its iterator ends with finish_reason "abort"."""
        await self._order(lambda: self.engine.abort(request_id))

    def shutdown(self) -> None:
        """Stop the engine; requests that still run end with an error."""
        self._orders.put(None)
        self._thread.join()

    async def __aenter__(self) -> "AsyncLLM":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.shutdown()

    async def _order(self, work: Callable[[], Result]) -> Result:
        """Let the engine's thread do `work`, and return what it gives or raise what it raises."""
        if self._is_over:
            raise self._ending() from self._failed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(set_it: Callable[[Any], None], value: Any) -> None:
            if not future.done():  # its caller may have been cancelled
                set_it(value)

        def run() -> None:
            try:
                if self._is_over:
                    raise self._ending()
                result = work()
            except Exception as error:
                loop.call_soon_threadsafe(settle, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, future.set_result, result)

        self._orders.put(run)
        return await future

    def _submit(self, prompt: Prompt, params: SamplingParams, name: str, tell: Tell) -> None:
        request = self.engine.new_request(prompt, params, request_id=name)

        def on_delta(delta: OutputDelta) -> None:
            if delta.output is not None:
                self._callers.pop(name, None)
            tell(delta)

        self.engine.add(request, on_delta=on_delta)
        self._callers[name] = tell

    def _leave(self, name: str, tell: Tell) -> None:
        """Abort what nobody listens to; another request may have the name by now."""
        if self._callers.get(name) is tell:
            self.engine.abort(name)

    def _ending(self) -> OutriderError:
        return RequestError("the engine has stopped. Make a new AsyncLLM.")

    def _run(self) -> None:
        """The engine's thread: orders first, then a step; waits only where there is nothing to do."""
        try:
            while self._obey():
                if self.engine.has_work:
                    self.engine.step()
        except Exception as error:
            self._failed = error
        self._is_over = True
        for tell in list(self._callers.values()):
            tell(self._failed or self._ending())
        self._callers.clear()
        while not self._orders.empty():
            order = self._orders.get()
            if order is not None:
                order()

    def _obey(self) -> bool:
        """Do every order at hand; False for the order to stop."""
        while True:
            try:
                order = self._orders.get(block=not self.engine.has_work)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()
