"""From a caller's prompt to a job of the engine: tokenizing, admission, the limit on what waits, restarts, draining.

Everything that a request can be refused for is looked at here, off the event loop where it takes time, so the engine's
process meets checked requests only. Knows no HTTP.
"""

import asyncio
import itertools
import math
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from outrider.core.config import EngineConfig
from outrider.core.errors import OutriderError
from outrider.core.outputs import OutputDelta
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Admission, Prompt
from outrider.engine.chat import ChatOptions, Message, encode_chat
from outrider.engine.client import EngineClient, EngineDeadError, Job
from outrider.engine.messages import EngineInfo
from outrider.engine.tokenizer import Tokenizer
from outrider.server.errors import APIError, overloaded, unavailable
from outrider.server.metrics import Metrics
from outrider.server.options import ServerOptions

_REMEMBERED = 32
"""Ends of requests that tell how soon the next one comes."""
_MAX_RETRY_SECONDS = 60

Result = TypeVar("Result")


class Front:
    """One engine's process with its tokenizer, and who may use it now."""

    def __init__(self, config: EngineConfig, options: ServerOptions) -> None:
        self.config = config
        self.options = options
        self.model_names = options.served_model_names or (config.model,)
        self.client = EngineClient(config)
        self.metrics = Metrics(self.model_names[0])
        self.started = int(time.time())
        self.is_draining = False
        self.num_restarts = 0
        self._num_unfinished = 0
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(4)
        self._restart: asyncio.Task[None] | None = None
        self._burial: asyncio.Task[None] | None = None
        """Ends what is left of a process that died and is not started again."""
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="admission")

    async def start(self) -> EngineInfo:
        """Start the engine; raises what makes that impossible."""
        self.client.on_death = self._on_death
        self.client.on_stats = self.metrics.observe_snapshot
        starting = asyncio.create_task(self.client.start())
        try:
            self.tokenizer = await asyncio.to_thread(Tokenizer, Path(self.config.model))
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise
        self.info = await starting
        self._admission = Admission(
            tokenizer=self.tokenizer,
            vocab_size=self.info.vocab_size,
            max_model_len=self.info.max_model_len,
            eos_token_ids=self.info.eos_token_ids,
            num_drafts=self.config.num_speculative_tokens,
            seed=self.config.seed,
            is_synthetic=self.config.speculative is not None and self.config.speculative.acceptance_rates is not None,
        )
        return self.info

    async def stop(self) -> None:
        """End the engine, and what runs on it."""
        if self._restart is not None:
            self._restart.cancel()
        await self.client.stop()
        self._reader.shutdown(cancel_futures=True)

    @property
    def chat_template(self) -> str | None:
        """What conversations are rendered with."""
        return self.options.chat_template or self.tokenizer.chat_template

    @property
    def is_healthy(self) -> bool:
        """True where a request would be served now."""
        return self.client.is_alive and not self.is_draining

    def check_model(self, name: str | None) -> None:
        """Raises APIError 404 for a model that is not served."""
        if name is not None and name not in self.model_names:
            known = ", ".join(self.model_names)
            raise APIError(
                f"model={name!r} is not served here. Served: {known}.",
                status=404,
                param="model",
                code="model_not_found",
            )

    def new_id(self) -> str:
        """An id that no request had before."""
        return f"{self._id_prefix}{next(self._ids):08x}"

    def encode_chat(self, messages: Sequence[Message], options: ChatOptions) -> list[int]:
        """Token ids of a conversation; it takes time. Raises RequestError."""
        return encode_chat(self.tokenizer, messages, options)

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Do what takes time in the thread for it, one at a time: text to tokens, grammars, templates."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    async def submit(
        self, prompts: Callable[[], Sequence[Prompt]], params: SamplingParams, *, count: int
    ) -> "Delivery":
        """Give the engine a request for each of `count` prompts, all or none. `prompts` makes them: it is called once
        there is room, in the thread for such work. Raises RequestError, and APIError where there is no room."""
        arrival = time.monotonic()
        count *= params.n
        self._check_room(count)
        self._num_unfinished += count
        try:
            requests = await self.aside(lambda: self._requests(prompts(), params))
            job = self.client.add(requests)
        except EngineDeadError as error:
            self._num_unfinished -= count
            raise self._dead() from error
        except BaseException:
            self._num_unfinished -= count
            raise
        job.on_request_over = self._request_over
        try:
            await job.admitted()
        except EngineDeadError as error:
            raise self._dead() from error
        except BaseException:
            job.close()
            raise
        return Delivery(job, self.metrics, arrival=arrival)

    def _requests(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[Request]:
        return [self._admission.request(prompt, params, request_id=self.new_id()) for prompt in prompts]

    def _request_over(self, request: Request) -> None:
        self._num_unfinished -= request.params.n
        self._ends.extend([time.monotonic()] * request.params.n)

    def _check_room(self, count: int) -> None:
        if self.is_draining:
            raise unavailable("the server is shutting down. Send the request to another one.")
        if not self.client.is_alive:
            raise self._dead()
        limit = self.info.max_num_seqs + self.options.max_queued_requests
        if self._num_unfinished + count > limit:
            raise overloaded(
                f"{self._num_unfinished} completions are under way, and {limit} may be at most (max_num_seqs running "
                f"and max_queued_requests waiting): {count} more are refused. Try again as Retry-After says.",
                retry_after=self._retry_after(count),
            )

    def _retry_after(self, count: int) -> int:
        """Seconds until `count` requests have ended, at the pace of the latest ends."""
        if len(self._ends) < 2 or self._ends[-1] <= self._ends[0]:
            return 1
        pace = len(self._ends) / (time.monotonic() - self._ends[0])
        return max(1, min(_MAX_RETRY_SECONDS, math.ceil(count / pace)))

    def _dead(self) -> Exception:
        if self._restart is not None and not self._restart.done():
            return unavailable("the engine has stopped and is being started again. Try again.", retry_after=5)
        return unavailable("the engine has stopped. Start the server again.")

    def _on_death(self) -> None:
        if self.num_restarts < self.options.max_engine_restarts and not self.is_draining:
            self.num_restarts += 1
            self._restart = asyncio.get_running_loop().create_task(self._start_again())
        else:
            self._burial = asyncio.get_running_loop().create_task(self.client.stop())

    async def _start_again(self) -> None:
        await self.client.stop()
        try:
            await self.client.start()
        except OutriderError as error:  # /health stays red
            print(f"The engine could not be started again: {error}", file=sys.stderr)

    async def drain(self) -> bool:
        """Take nothing new and wait for what runs, as long as the options allow; False where something is left."""
        self.is_draining = True
        end = time.monotonic() + self.options.drain_seconds
        while self._num_unfinished > 0 and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return self._num_unfinished == 0


class Delivery:
    """A job of the engine on its way to the caller, timed."""

    def __init__(self, job: Job, metrics: Metrics, *, arrival: float) -> None:
        """`arrival`: when the caller's request came, of `time.monotonic`."""
        self.job = job
        self.requests = job.requests
        self._metrics = metrics
        self._arrival = arrival
        self._latest: dict[tuple[str, int], float] = {}  # by request and choice
        self._begun: set[str] = set()

    def prompt_index(self, delta: OutputDelta) -> int:
        """Which of the prompts it belongs to."""
        return self.job.index_of[delta.request_id]

    def close(self) -> None:
        """The caller has gone, or has everything."""
        self.job.close()

    async def take(self) -> list[OutputDelta]:
        """As `Job.take`."""
        deltas = await self.job.take()
        now, metrics = time.monotonic(), self._metrics
        for delta in deltas:
            key = delta.request_id, delta.index
            if key in self._latest:
                metrics.on_inter_token(now - self._latest[key])
            elif delta.request_id not in self._begun:
                self._begun.add(delta.request_id)
                metrics.on_first_token(now - self._arrival)
            self._latest[key] = now
            if delta.output is not None:
                metrics.on_request_finished(delta.output, seconds=now - self._arrival)
        return deltas
