"""The asyncio client of an engine process: starts it, sends requests, receives deltas, notices when it dies.

Deltas that the caller has not taken yet are merged, so a slow reader costs other callers nothing and holds at most one
request's output. Knows neither HTTP nor text.
"""

import asyncio
import itertools
import logging
import pickle
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from outrider.core import log
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError, EngineDeadError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingRequestOutput
from outrider.core.request import Request
from outrider.engine.channel import Channel
from outrider.engine.launch import start_interpreter
from outrider.engine.messages import (
    Abort,
    Add,
    Added,
    Begin,
    Count,
    Counted,
    EngineInfo,
    Failed,
    Logged,
    Stopped,
    Turn,
)
from outrider.engine.stats import EngineStats
from outrider.platforms.torch_settings import TorchSettings

_STOP_SECONDS = 10.0
"""Seconds that the process has to exit by itself before it is killed."""
_log = logging.getLogger(__name__)


class Job:
    """The requests of one call, admitted all or none, and their deltas, merged until the caller takes them."""

    def __init__(self, requests: Sequence[Request], leave: Callable[[str], None]) -> None:
        self.requests = list(requests)
        self.index_of = {request.request_id: index for index, request in enumerate(requests)}
        self.on_request_over: Callable[[Request], None] | None = None
        """Called once for each request, when it has ended or was abandoned."""
        self._leave = leave
        self._not_added = set(self.index_of)
        self._running = dict.fromkeys(self.index_of)
        self._pending: dict[tuple[str, int], OutputDelta] = {}  # by request and completion, in order of arrival
        self._pooled: dict[str, PoolingRequestOutput] = {}
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, delta: OutputDelta) -> None:
        """Adds a delta from the engine."""
        key = delta.request_id, delta.index
        earlier = self._pending.get(key)
        self._pending[key] = delta if earlier is None else _merged(earlier, delta)
        if delta.output is not None:
            self._end(delta.request_id)
        self._wake()

    def put_pooled(self, output: PoolingRequestOutput) -> None:
        """Adds the output of a pooling request."""
        self._pooled[output.request_id] = output
        self._end(output.request_id)
        self._wake()

    def _end(self, request_id: str) -> None:
        if request_id in self._running:
            del self._running[request_id]
            if self.on_request_over is not None:
                self.on_request_over(self.requests[self.index_of[request_id]])

    def set_added(self, request_id: str) -> None:
        """Marks a request as admitted by the engine."""
        self._not_added.discard(request_id)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the job with an error; requests that still run are aborted."""
        self._error = error
        self.close()

    def close(self) -> None:
        """Ends the job because its caller is finished; requests that still run are aborted."""
        for request_id in list(self._running):
            self._end(request_id)
            self._leave(request_id)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def admitted(self) -> None:
        """Waits until the engine has admitted every request. Raises RequestError, or EngineDeadError."""
        while self._not_added and self._error is None and self._running:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def take(self) -> list[OutputDelta]:
        """Waits for new deltas and returns at most one per completion; [] once all were taken, or after `close`.

        The last delta of a request holds its output. Raises EngineDeadError, after everything that came before.
        """
        while not self._pending:
            if self._error is not None:
                raise self._error
            if not self._running:
                return []
            await self._wait()
        deltas = list(self._pending.values())
        self._pending = {}
        return deltas

    async def pooled(self) -> list[PoolingRequestOutput]:
        """Waits until every pooling request has ended; outputs in the order of the requests, [] after `close`.

        Raises RequestError if the engine refuses one, or EngineDeadError.
        """
        while self._running and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        is_whole = len(self._pooled) == len(self.requests)
        return [self._pooled[request.request_id] for request in self.requests] if is_whole else []


def _merged(first: OutputDelta, second: OutputDelta) -> OutputDelta:
    """Merges two deltas of one completion into the second, reusing the lists of the first. Neither is shared."""
    first.token_ids += second.token_ids
    first.is_draft += second.is_draft
    second.text = first.text + second.text
    second.token_ids, second.is_draft = first.token_ids, first.is_draft
    if second.logprobs is not None and first.logprobs is not None:
        first.logprobs += second.logprobs
        second.logprobs = first.logprobs
    return second


class EngineClient:
    """One engine process. All of its methods are called in one event loop at a time; see `attach`."""

    def __init__(
        self, config: EngineConfig, *, log_level: str | None = log.DEFAULT_LEVEL, skip_tokenizer_init: bool = False
    ) -> None:
        """log_level: of the process, which writes its log to stderr; None: its records are logged in this process, at
        the level in force here when the process starts."""
        self.config = config
        self.info: EngineInfo | None = None
        """The engine's description of itself; None until it is ready."""
        self.failure: str | None = None
        """The error that ended the engine, if it could still say so."""
        self.on_stats: Callable[[EngineStats], None] | None = None
        """Called with every snapshot of the engine's counters."""
        self.on_death: Callable[[], None] | None = None
        """Called when the process has exited without being asked to."""
        self._log_level = log_level
        self._skip_tokenizer_init = skip_tokenizer_init
        self._has_died = False
        self._jobs: dict[str, Job] = {}  # by the id of each request that has not ended
        self._counts: dict[int, asyncio.Future[EngineStats]] = {}  # snapshots that were asked for
        self._numbers = itertools.count()
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: Future[EngineInfo] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """True while the engine is ready and its process runs."""
        return self._channel is not None and self.info is not None

    @property
    def num_requests(self) -> int:
        """Number of requests that have not ended in the engine."""
        return len(self._jobs)

    async def start(self) -> EngineInfo:
        """Starts the process and waits until the engine is ready.

        Raises the engine's ConfigError, UnsupportedError or CheckpointError if startup fails, else EngineDeadError."""
        assert self._channel is None, "the engine is running"
        try:
            self.launch()
            self.attach()
            self.info = await asyncio.wrap_future(self._ready)
        except BaseException:
            await self.stop()
            raise
        return self.info

    def launch(self) -> None:
        """Starts the process and returns at once; `start` does this, or `wait_ready` follows."""
        assert self._channel is None, "the engine is running"
        level = log.effective_level() if self._log_level is None else self._log_level
        begin = Begin(
            config=self.config,
            log_level=level,
            torch_settings=TorchSettings.of_this_process(),
            skip_tokenizer_init=self._skip_tokenizer_init,
        )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = start_interpreter(theirs)
            except BaseException:
                ours.close()
                raise
        self._channel = Channel(ours)
        self._ready = Future()
        self.failure = None
        try:
            self._channel.send(begin)
        except OSError:
            pass  # the process has exited; the next read will notice
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the options cannot be sent to the engine's process: {error}. Use plain values."
            ) from error

    def wait_ready(self) -> EngineInfo:
        """Blocks until the engine is ready; for a caller without an event loop. Raises what `start` raises."""
        assert self._channel is not None and self._loop is None, "the engine runs, or an event loop reads its messages"
        while not self._ready.done():
            self._channel.wait()
            if self._channel.has_backlog:
                self._on_writable()
            if self._channel is not None:
                self._on_readable()
        self.info = self._ready.result()
        return self.info

    def attach(self) -> None:
        """Reads the engine's messages in the running event loop from now on.

        Requests of an earlier loop that has ended are aborted. Raises RequestError if that loop still runs."""
        loop = asyncio.get_running_loop()
        if loop is self._loop or self._channel is None:
            return
        if self._loop is not None and self._loop.is_running():
            raise RequestError(
                "the engine is used in another event loop, which still runs. Use one event loop, or an engine for each."
            )
        self._detach()
        self._loop = loop
        loop.add_reader(self._channel.fileno(), self._on_readable)
        for request_id in list(self._jobs):
            self._leave(request_id)
        self._write_later()

    def _detach(self) -> None:
        """Leaves the event loop, if there is one."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed() and self._channel is not None:
            loop.remove_reader(self._channel.fileno())
            loop.remove_writer(self._channel.fileno())

    async def stop(self, error: Exception | None = None) -> None:
        """Ends the process; requests that still run fail with `error`, by default an EngineDeadError."""
        self._is_stopping = True
        self._disconnect(error or EngineDeadError("the engine was stopped while this request ran"))
        if self._process is not None:
            await asyncio.to_thread(self.reap)
        self._is_stopping = False

    def close(self, error: Exception | None = None) -> None:
        """Does what `stop` does, and blocks until the process has exited.

        Any thread may call it while no event loop runs, and the thread of the event loop at any time."""
        self._is_stopping = True
        self._disconnect(error or EngineDeadError("the engine was stopped while this request ran"))
        self.reap()
        self._is_stopping = False

    def reap(self) -> None:
        """Waits until the process has exited, and kills it if that takes long. Blocks; any thread may call it."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._has_died:
            self._has_died = False
            self.failure = self.failure or f"exit code {process.returncode}"
            _log.error("the engine process exited unexpectedly with code %d", process.returncode)

    def add(self, requests: Sequence[Request]) -> Job:
        """Sends checked requests, each with a new id, to the engine. Raises EngineDeadError."""
        if not self.is_alive:
            raise EngineDeadError("the engine is not running")
        job = Job(requests, self._leave)
        for request in requests:
            assert request.request_id not in self._jobs, f"{request.request_id} is in use"
            self._jobs[request.request_id] = job
            self._send(Add(replace(request, call_id=requests[0].request_id)))
        return job

    def abort(self, request_id: str) -> None:
        """Aborts a request whose caller stays: its last delta has finish_reason "abort"."""
        if request_id in self._jobs and self.is_alive:
            self._send(Abort(request_id))

    async def stats(self) -> EngineStats:
        """A snapshot of the engine's counters, taken now. Raises EngineDeadError."""
        if not self.is_alive:
            raise EngineDeadError("the engine is not running")
        number = next(self._numbers)
        self._counts[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(Count(number))
            return await self._counts[number]
        finally:
            del self._counts[number]

    def _leave(self, request_id: str) -> None:
        if self._jobs.pop(request_id, None) is not None and self.is_alive:
            self._send(Abort(request_id))

    def _send(self, message: object) -> None:
        assert self._channel is not None
        try:
            self._channel.send(message)
        except OSError:
            return  # the process has exited; _on_readable will notice
        self._write_later()

    def _write_later(self) -> None:
        """Sends what the socket has not accepted, once it does."""
        if self._channel is not None and self._channel.has_backlog and self._loop is not None:
            self._loop.add_writer(self._channel.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        assert self._channel is not None
        try:
            self._channel.flush()
        except OSError:
            self._channel_lost()
            return
        if not self._channel.has_backlog and self._loop is not None:
            self._loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        assert self._channel is not None
        try:
            messages = self._channel.receive()
        except (EOFError, OSError):
            self._channel_lost()
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, Turn):
            self._on_turn(message)
        elif isinstance(message, Logged):
            for record in message.records:
                log.log_forwarded(record)
        elif isinstance(message, Stopped):
            self.failure = message.reason
        else:
            self._on_ready(message)

    def _on_ready(self, message: EngineInfo | Failed) -> None:
        if self._ready.done():
            return
        if isinstance(message, EngineInfo):
            self._ready.set_result(message)
        else:
            self._ready.set_exception(message.error or EngineDeadError(message.message))

    def _on_turn(self, turn: Turn) -> None:
        jobs = self._jobs
        for answer in turn.answers:
            if isinstance(answer, Counted):
                counted = self._counts.get(answer.number)
                if counted is not None and not counted.done():
                    counted.set_result(answer.stats)
                continue
            job = jobs.get(answer.request_id)
            if job is None:
                continue
            if isinstance(answer, Added):
                job.set_added(answer.request_id)
            else:
                del jobs[answer.request_id]
                job.fail(RequestError(answer.message))
        for delta in turn.deltas:
            job = jobs.get(delta.request_id)
            if job is not None:
                job.put(delta)
                if delta.output is not None:
                    del jobs[delta.request_id]
        for output in turn.pooled:
            job = jobs.pop(output.request_id, None)
            if job is not None:
                job.put_pooled(output)
        if turn.stats is not None and self.on_stats is not None:
            self.on_stats(turn.stats)

    def _channel_lost(self) -> None:
        is_death = not self._is_stopping
        self._has_died = is_death and self.info is not None
        self._disconnect(EngineDeadError("the engine process died while this request ran"))
        if is_death and self.on_death is not None:
            self.on_death()

    def _disconnect(self, error: Exception) -> None:
        self._detach()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.info = None
        if not self._ready.done():
            self._ready.set_exception(EngineDeadError("the engine process exited during startup"))
        jobs, self._jobs = self._jobs, {}
        for job in dict.fromkeys(jobs.values()):
            job.fail(error)
        for counted in self._counts.values():
            if not counted.done() and not counted.get_loop().is_closed():
                counted.set_exception(error)
