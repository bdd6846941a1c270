"""Turns a caller's prompt into a job of the engine: tokenizing, admission, the queue limit, restarts, draining.

Every reason to refuse a request is checked here, off the event loop where that takes time, so the engine process
receives checked requests only. Knows no HTTP.
"""

import asyncio
import itertools
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Protocol, TypeVar

from starlette.requests import Request as HTTPRequest

from outrider.core.config import EngineConfig
from outrider.core.content import ContentKey, salt
from outrider.core.errors import ConfigError, EngineDeadError, OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingAbilities
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Admission, Prompt
from outrider.engine.chat import ChatOptions, Message, encode_chat
from outrider.engine.client import EngineClient, Job
from outrider.engine.messages import EngineInfo
from outrider.engine.pooling_admission import PoolingAdmission
from outrider.engine.tokenizer import Tokenizer
from outrider.server.activity import Activity
from outrider.server.admission_threads import AdmissionThreads
from outrider.server.errors import APIError, disconnected, overloaded, refused, unavailable
from outrider.server.guards import given_keys
from outrider.server.metrics import Metrics
from outrider.server.options import ServerOptions
from outrider.server.pooling.job import SLICE, PoolingJob

_REMEMBERED = 32
"""Number of latest completions whose end times give the pace for Retry-After."""
_MAX_RETRY_SECONDS = 60
_MAX_PROMPT_LOGPROBS = 1 << 18
"""Maximum number of log-probabilities of prompts in one answer, which hold some 100 bytes each."""
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses before a restart is tried again for which the system had no process, socket or memory."""
_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Maker(Protocol):
    """Makes checked requests; takes time. Raises RequestError, or APIError."""

    def __call__(self, *, new_id: Callable[[], str], content_keys: Sequence[ContentKey]) -> Sequence[Request]: ...


class Front:
    """One engine process with its tokenizer, and the rules on who may use it now."""

    def __init__(self, config: EngineConfig, options: ServerOptions) -> None:
        self.config = config
        self.options = options
        self.model_names = options.served_model_names or (config.model,)
        self.client = EngineClient(config, log_level=options.log_level)
        self.metrics = Metrics(self.model_names[0])
        self.activity = Activity()
        self.started = int(time.time())
        self.is_draining = False
        self.num_restarts = 0
        self._num_unfinished = 0
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(4)
        self._restart: asyncio.Task[None] | None = None
        self._cleanup: asyncio.Task[None] | None = None
        """Reaps an engine process that will not be restarted."""
        self._threads = AdmissionThreads()

    async def start(self) -> EngineInfo:
        """Starts the engine. Raises ConfigError, UnsupportedError, CheckpointError or EngineDeadError."""
        self.client.on_death = self._on_death
        self.client.on_stats = lambda stats: self.metrics.observe_snapshot(stats)
        starting = asyncio.create_task(self.client.start())
        reading = asyncio.create_task(asyncio.to_thread(Tokenizer, Path(self.config.model)))
        try:
            await asyncio.wait((starting, reading))  # both: the engine's fault, if it has one, says more
            self.info = await starting
            self.tokenizer = await reading
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, reading, return_exceptions=True)
            raise
        self._admission = Admission(
            tokenizer=self.tokenizer,
            vocab_size=self.info.vocab_size,
            max_model_len=self.info.max_model_len,
            eos_token_ids=self.info.eos_token_ids,
            seed=self.config.seed,
            compiles_grammars=False,
        )
        if self.info.pooling is not None:
            self._begin_pooling(self.info.pooling)
        return self.info

    def _begin_pooling(self, abilities: PoolingAbilities) -> None:
        """Prepares for an engine that pools: another admission, and other metrics. Raises ConfigError."""
        for name in ("tool_call_parser", "reasoning_parser"):
            if (value := getattr(self.options, name)) is not None:
                raise ConfigError(
                    f"{name}={value!r} has no effect: {self.model_names[0]} runs as a pooling model, which writes no "
                    "text. Leave it out, or use --runner generate."
                )
        self.pooling = PoolingAdmission(
            tokenizer=self.tokenizer,
            vocab_size=self.info.vocab_size,
            max_model_len=self.info.max_model_len,
            abilities=abilities,
        )
        stats, self.metrics = self.metrics.stats, Metrics(self.model_names[0], is_pooling=True)
        if stats is not None:
            self.metrics.observe_snapshot(stats)

    async def stop(self) -> None:
        """Stops the engine; requests that still run fail."""
        if self._restart is not None:
            self._restart.cancel()
        await self.client.stop()
        self._threads.shutdown()

    @property
    def chat_template(self) -> str | None:
        """Jinja source of the template for conversations; None if neither server nor model has one."""
        return self.options.chat_template or self.tokenizer.chat_template

    @property
    def is_healthy(self) -> bool:
        """True while requests are served."""
        return self.client.is_alive and not self.is_draining

    def check_model(self, name: str | None) -> None:
        """Raises APIError 404 if no model of this name is served. None stands for the served one."""
        if name is not None and name not in self.model_names:
            known = ", ".join(self.model_names)
            raise APIError(
                f"model={name!r} is not served here. Served: {known}.",
                status=404,
                param="model",
                code="model_not_found",
            )

    def new_id(self) -> str:
        """A new request id, unique across restarts of the server."""
        return f"{self._id_prefix}{next(self._ids):08x}"

    def encode_chat(self, messages: Sequence[Message], options: ChatOptions) -> list[int]:
        """Token ids of a conversation. Takes time: call it through `aside`. Raises RequestError."""
        options = replace(options, chat_template_content_format=self.options.chat_template_content_format)
        return encode_chat(self.tokenizer, messages, options, max_tokens=self.info.max_model_len)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Takes time: call it through `aside`. Raises RequestError if it is certainly too long."""
        self.tokenizer.check_length(text, max_tokens=self.info.max_model_len)
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def encode_prompt(self, text: str, params: SamplingParams, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt of text, as admission makes them. Takes time. Raises RequestError."""
        return self._admission.encode(text, params, add_special_tokens=add_special_tokens)

    async def aside(self, work: Callable[[], Result], request: HTTPRequest | None = None) -> Result:
        """Runs slow work (parsing, templates, tokenizing, grammars) in one of the admission threads.

        `request`: its caller waits for the work, and takes turns with the other callers. Work of callers who have left
        is not begun. Raises APIError if too much work waits; None: the work is that of an admitted request."""
        if request is None:
            return await self._threads.run(work)
        self._check_waiting()
        working = asyncio.create_task(self._threads.run(work, caller=_caller(request)))
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise disconnected()
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def submit(
        self,
        prompts: Callable[[], Sequence[Prompt]],
        params: SamplingParams,
        *,
        count: int,
        request: HTTPRequest | None = None,
        cache_salt: str | None = None,
    ) -> "Delivery":
        """Submits one request for each of `count` prompts, all or none.

        `prompts` makes them; it is called in an admission thread, once the queue has places for them. `request`: see
        `aside`. `cache_salt`: the caller's salt for the prefix cache. Raises RequestError, or APIError if the queue is
        full or the engine is not running."""
        arrival = time.monotonic()
        self._check_priority(params.priority)
        salts = self._salts(request, cache_salt)
        count *= params.n
        self._check_capacity(count)
        self._num_unfinished += count
        try:
            requests = await self.aside(lambda: self._requests(prompts(), params, salts), request)
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

    async def pool(
        self,
        makers: Sequence[Maker],
        *,
        count: int,
        priority: int,
        request: HTTPRequest,
        cache_salt: str | None = None,
    ) -> PoolingJob:
        """Admits the `count` requests that `makers` make, all or none, and returns them as a job that has not begun.

        The makers are called one by one in admission threads, each in turn with other callers. Raises RequestError, or
        APIError if the queue is full or the engine is not running."""
        arrival = time.monotonic()
        self._check_priority(priority)
        salts = self._salts(request, cache_salt)
        # a long call runs in as many places as there are, and leaves some for others
        limit = self.info.max_num_seqs + self.options.max_queued_requests
        needed = min(count, SLICE, max(1, limit // 2))
        self._check_capacity(needed)
        places = min(count, max(needed, (limit - self._num_unfinished) // 2))
        self._num_unfinished += places
        try:
            requests: list[Request] = []
            for make in makers:
                requests += await self.aside(partial(make, new_id=self.new_id, content_keys=salts), request)
        except BaseException:
            self._num_unfinished -= places
            raise
        return PoolingJob(
            self.client,
            requests,
            num_places=places,
            free=self._free_places,
            metrics=self.metrics,
            arrival=arrival,
        )

    def _free_places(self, count: int) -> None:
        self._num_unfinished -= count
        self._ends.extend([time.monotonic()] * count)

    def _check_priority(self, priority: int) -> None:
        if priority and self.options.scheduling_policy != "priority":
            raise refused(
                f"priority={priority} is refused: this server runs requests in the order of their arrival. "
                "Leave priority out, or start the server with --scheduling-policy priority.",
                param="priority",
            )

    def _requests(
        self, prompts: Sequence[Prompt], params: SamplingParams, salts: Sequence[ContentKey]
    ) -> list[Request]:
        requests = [
            self._admission.request(prompt, params, request_id=self.new_id(), content_keys=salts) for prompt in prompts
        ]
        if params.prompt_logprobs is not None:
            count = (1 + params.prompt_logprobs) * sum(len(request.prompt_token_ids) for request in requests)
            if count > _MAX_PROMPT_LOGPROBS:
                raise RequestError(
                    f"prompt_logprobs={params.prompt_logprobs} of all prompts are {count} log-probabilities; at most "
                    f"{_MAX_PROMPT_LOGPROBS} are returned at once. Send fewer tokens, or ask for fewer of each."
                )
        return requests

    def _salts(self, request: HTTPRequest | None, cache_salt: str | None) -> list[ContentKey]:
        """Keys that keep prompts of callers apart in the prefix cache: one for the API key, if the server has several,
        and one for the caller's own salt."""
        salts = [] if cache_salt is None else [salt("cache_salt", cache_salt)]
        if request is not None and len(self.options.api_keys) > 1:
            given = given_keys(request.scope)
            known = [key for key in self.options.api_keys if any(compare_digest(key.encode(), each) for each in given)]
            salts.append(salt("api_key", known[0]))
        return salts

    def _request_over(self, request: Request) -> None:
        self._num_unfinished -= request.params.n
        self._ends.extend([time.monotonic()] * request.params.n)

    def _check_capacity(self, count: int) -> None:
        if self.is_draining:
            raise unavailable("the server is shutting down. Send the request to another one.")
        if not self.client.is_alive:
            raise self._dead()
        limit = self.info.max_num_seqs + self.options.max_queued_requests
        if self._num_unfinished + count > limit:
            raise overloaded(
                f"the server is full: {self._num_unfinished} completions run or wait, of at most {limit} (max_num_seqs "
                f"+ max_queued_requests), so {count} more are refused. Try again after the seconds in Retry-After.",
                retry_after=self._retry_after(count),
            )

    def _check_waiting(self) -> None:
        limit = self.info.max_num_seqs + self.options.max_queued_requests
        if self._threads.num_waiting >= limit:
            raise overloaded(
                f"the server is full: {self._threads.num_waiting} requests wait to be read, of at most {limit} "
                "(max_num_seqs + max_queued_requests). Try again after the seconds in Retry-After.",
                retry_after=self._retry_after(1),
            )

    def _retry_after(self, count: int) -> int:
        """Seconds until `count` completions have ended, at the pace of the latest ones."""
        if len(self._ends) < 2 or self._ends[-1] <= self._ends[0]:
            return 1
        pace = len(self._ends) / (time.monotonic() - self._ends[0])
        return max(1, min(_MAX_RETRY_SECONDS, math.ceil(count / pace)))

    def _dead(self) -> Exception:
        if self._restart is not None and not self._restart.done():
            return unavailable("the engine process exited and is being restarted. Try again.", retry_after=5)
        return unavailable("the engine process exited. Restart the server.")

    def _on_death(self) -> None:
        if self.num_restarts < self.options.max_engine_restarts and not self.is_draining:
            self.num_restarts += 1
            _log.warning("restarting the engine: %d of %d", self.num_restarts, self.options.max_engine_restarts)
            self._restart = asyncio.get_running_loop().create_task(self._start_again())
        else:
            self._cleanup = asyncio.get_running_loop().create_task(self.client.stop())

    async def _start_again(self) -> None:
        await self.client.stop()
        for pause in (*_RETRY_SECONDS, None):
            try:
                await self.client.start()
            except OSError as error:  # no process, socket or memory is available now
                _log.error("the engine could not be restarted: %s%s", error, _next_try(pause))
                if pause is not None:
                    await asyncio.sleep(pause)
                    continue
            except OutriderError as error:  # /health stays red
                _log.error("the engine could not be restarted: %s", error)
            else:
                _log.info("the engine is ready again")
            return

    async def drain(self) -> bool:
        """Refuses new requests and waits up to `drain_seconds` for running ones; False if some are left."""
        self.is_draining = True
        _log.info("draining: %d completions have %g s to finish", self._num_unfinished, self.options.drain_seconds)
        end = time.monotonic() + self.options.drain_seconds
        while self._num_unfinished > 0 and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return self._num_unfinished == 0


class Delivery:
    """A job of the engine with its times and counts, as its deltas go to the caller."""

    def __init__(self, job: Job, metrics: Metrics, *, arrival: float) -> None:
        """`arrival`: time.monotonic() when the HTTP request arrived."""
        self.job = job
        self.requests = job.requests
        self._metrics = metrics
        self._arrival = arrival
        self.num_output_tokens = 0
        """Tokens taken so far, over all prompts and completions."""
        self._finish_reasons: list[str] = []
        self._latest: dict[tuple[str, int], float] = {}  # by request id and completion index
        self._begun: set[str] = set()

    @property
    def num_prompt_tokens(self) -> int:
        """Prompt tokens over all prompts."""
        return sum(len(request.prompt_token_ids) for request in self.requests)

    @property
    def finish_reasons(self) -> list[str]:
        """One per completion, in the order in which they ended; "abort" for those that have not."""
        num_completions = sum(request.params.n for request in self.requests)
        return self._finish_reasons + ["abort"] * (num_completions - len(self._finish_reasons))

    def prompt_index(self, delta: OutputDelta) -> int:
        """Index of the prompt that a delta belongs to."""
        return self.job.index_of[delta.request_id]

    def close(self) -> None:
        """Ends the job; requests that still run are aborted."""
        self.job.close()

    async def take(self) -> list[OutputDelta]:
        """Waits like `Job.take`, and records times and counts."""
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
            self.num_output_tokens += len(delta.token_ids)
            if delta.finish_reason is not None:
                self._finish_reasons.append(delta.finish_reason)
            if delta.output is not None:
                metrics.on_request_finished(delta.output, seconds=now - self._arrival)
        return deltas


def _caller(request: HTTPRequest) -> str:
    """A name for the caller of a request: its key, or its address."""
    given = request.headers.get("authorization") or request.headers.get("x-api-key")
    return given or (request.client.host if request.client is not None else "")


async def _left(request: HTTPRequest) -> None:
    """Returns when the client has disconnected. The body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _next_try(pause: float | None) -> str:
    return "" if pause is None else f"; next try in {pause:g} s"
