"""`AsyncLLM`: the engine behind asyncio. Each request is an asynchronous iterator over its deltas, step by step.

The engine runs in a process of its own, as that of the server does (`engine/client.py`), so callers and engine do not
share an interpreter. Prompts are checked here, in a thread beside the event loop. Knows nothing of HTTP.
"""

import asyncio
import itertools
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from outrider.core import log
from outrider.core.config import engine_config
from outrider.core.engine_options import EngineOptions
from outrider.core.errors import EngineDeadError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingParams, PoolingRequestOutput
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Admission, Prompt
from outrider.engine.client import EngineClient, Job
from outrider.engine.pooling_admission import GENERATES, POOLS, PoolingAdmission
from outrider.engine.stats import EngineStats
from outrider.engine.tokenizer import Tokenizer
from outrider.loading.model_source import with_local_files


@dataclass(slots=True)
class _Request:
    """A request that has not ended."""

    wire_id: str
    """Its id in the engine process: never used twice, so no delta reaches a later request of the same name."""
    job: Job | None = None
    """None while its prompt is checked."""
    is_aborted: bool = False


class AsyncLLM:
    """A model with an optional drafter for many callers at once; options are those of `LLM`.

    The constructor blocks until the engine is ready. Use it as `async with`, or call `shutdown`. It serves one event
    loop at a time. If the engine's process dies, every call raises EngineDeadError.
    """

    def __init__(self, model: str, *, skip_tokenizer_init: bool = False, **options: Unpack[EngineOptions]) -> None:
        log.configure_from_environment()
        config = with_local_files(engine_config(model, **options))
        self._client = EngineClient(config, log_level=None, skip_tokenizer_init=skip_tokenizer_init)
        self._requests: dict[str, _Request] = {}  # by the name that the caller knows
        self._numbers = itertools.count()
        self._is_shut_down = False
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outrider-admission")
        self._client.on_death = partial(_reap, self._client)
        self._end = weakref.finalize(self, self._client.close)  # at exit, too
        tokenizer, fault = None, None
        try:
            self._client.launch()
            if not skip_tokenizer_init:
                try:
                    tokenizer = Tokenizer(Path(config.model))
                except Exception as error:  # the engine's own fault, if it has one, says more
                    fault = error
            info = self._client.wait_ready()
            if fault is not None:
                raise fault
        except BaseException:
            self.shutdown()
            raise
        self._sampling_defaults = info.sampling_defaults
        self._sampling_defaults.announce()
        self._pooling = None
        if info.pooling is not None:
            self._pooling = PoolingAdmission(
                tokenizer=tokenizer,
                vocab_size=info.vocab_size,
                max_model_len=info.max_model_len,
                abilities=info.pooling,
            )
        self._admission = Admission(
            tokenizer=tokenizer,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            eos_token_ids=info.eos_token_ids,
            seed=config.seed,
            compiles_grammars=False,
        )

    def get_default_sampling_params(self) -> SamplingParams:
        """The parameters of a request without any: those that generation_config.json recommends, as in `LLM`."""
        return self._sampling_defaults.params()

    async def generate(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> AsyncIterator[OutputDelta]:
        """Deltas of one request; the last one holds the whole output. Leaving the iterator early aborts the request.

        Deltas that the caller does not take in time are merged. Raises RequestError if the request cannot be served,
        before anything runs.
        """
        if self._pooling is not None:
            raise RequestError(POOLS)
        name, own = self._begin(request_id)
        try:
            params = sampling_params or self.get_default_sampling_params()
            job = await self._admitted(own, partial(self._admission.request, prompt, params, request_id=own.wire_id))
            while deltas := await job.take():
                for delta in deltas:
                    if delta.output is not None:
                        self._forget(name, own)
                    yield _named(delta, name)
        except EngineDeadError as error:
            raise self._dead(error) from error
        finally:
            self._forget(name, own)
            if own.job is not None:
                own.job.close()

    async def encode(
        self, prompt: Prompt, pooling_params: PoolingParams | None = None, *, request_id: str | None = None
    ) -> AsyncIterator[PoolingRequestOutput]:
        """The output of one pooling request, an iterator of one element. Leaving it early aborts the request.

        Raises RequestError if the request cannot be served or is aborted, or if the engine generates.
        """
        if self._pooling is None:
            raise RequestError(GENERATES)
        name, own = self._begin(request_id)
        try:
            params = pooling_params or PoolingParams()
            job = await self._admitted(own, partial(self._pooling.request, prompt, params, request_id=own.wire_id))
            for output in await job.pooled():
                self._forget(name, own)
                if not output.finished:
                    raise RequestError(f"request_id={name!r} was aborted before it had ended. Send it again.")
                yield replace(output, request_id=name)
        except EngineDeadError as error:
            raise self._dead(error) from error
        finally:
            self._forget(name, own)
            if own.job is not None:
                own.job.close()

    def _begin(self, request_id: str | None) -> tuple[str, _Request]:
        """The name and the entry of a new request. Raises RequestError if the name is in use."""
        self._check_running()
        self._client.attach()
        wire_id = str(next(self._numbers))
        name = request_id if request_id is not None else f"async-{wire_id}"
        if name in self._requests:
            raise RequestError(f"request_id={name!r} is in use. Wait for it, or take another id.")
        own = self._requests[name] = _Request(wire_id)
        return name, own

    async def _admitted(self, own: _Request, check: Callable[[], Request]) -> Job:
        """Check a request and send it to the engine, which has queued it when this returns."""
        request = await asyncio.get_running_loop().run_in_executor(self._reader, check)
        self._check_running()
        own.job = self._client.add([request])
        if own.is_aborted:
            self._client.abort(own.wire_id)
        await own.job.admitted()
        return own.job

    def _forget(self, name: str, own: _Request) -> None:
        """The request has ended: another one may have its name."""
        if self._requests.get(name) is own:
            del self._requests[name]

    async def abort(self, request_id: str) -> None:
        """Abort a request; its iterator ends with finish_reason "abort"."""
        self._check_running()
        self._client.attach()
        own = self._requests.get(request_id)
        if own is not None:
            own.is_aborted = True
            self._client.abort(own.wire_id)

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        self._check_running()
        self._client.attach()
        try:
            return await self._client.stats()
        except EngineDeadError as error:
            raise self._dead(error) from error

    def shutdown(self) -> None:
        """Stop the engine, and wait until its process has exited; requests that still run end with an error."""
        self._is_shut_down = True
        self._end.detach()
        self._client.close(_stopped())
        self._reader.shutdown(wait=False)

    async def __aenter__(self) -> "AsyncLLM":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.shutdown()

    def _check_running(self) -> None:
        if self._is_shut_down:
            raise _stopped()

    def _dead(self, error: EngineDeadError) -> EngineDeadError:
        """The error with the engine's own reason, if it gave one, and the remedy."""
        reason = f": {self._client.failure}" if self._client.failure is not None else ""
        return EngineDeadError(f"{error}{reason}. Its log may say more. Make a new AsyncLLM.")


def _named(delta: OutputDelta, name: str) -> OutputDelta:
    """The delta under the name that its caller knows."""
    delta.request_id = name
    if delta.output is not None:
        delta.output = replace(delta.output, request_id=name)
    return delta


def _reap(client: EngineClient) -> None:
    """Have the exit code of a process that died read and logged, without blocking the event loop."""
    threading.Thread(target=client.reap, name="outrider-reap", daemon=True).start()


def _stopped() -> RequestError:
    return RequestError("the engine has stopped. Make a new one.")
