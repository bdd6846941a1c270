"""The asyncio client of an engine process: starts it, sends requests, receives deltas, notices when it dies.

Deltas that the caller has not taken yet are merged, so a slow reader costs other callers nothing and holds at most one
request's output. Knows neither HTTP nor text.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from outrider.core import log
from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError, OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.request import Request
from outrider.engine.channel import Channel
from outrider.engine.messages import Abort, Add, Added, Begin, EngineInfo, Failed, Turn
from outrider.engine.stats import EngineStats

_PROGRAM = "import sys; from outrider.engine.process import main; main(int(sys.argv[1]))"
_STOP_SECONDS = 10.0
"""Seconds that the process has to exit by itself before it is killed."""
_log = logging.getLogger(__name__)


class EngineDeadError(OutriderError):
    """The engine process is not running."""


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
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
    """One engine process. All of its methods are called in one event loop."""

    def __init__(self, config: EngineConfig, *, log_level: str = log.DEFAULT_LEVEL) -> None:
        self.config = config
        self.info: EngineInfo | None = None
        """The engine's description of itself; None until it is ready."""
        self.on_stats: Callable[[EngineStats], None] | None = None
        """Called with every snapshot of the engine's counters."""
        self.on_death: Callable[[], None] | None = None
        """Called when the process has exited without being asked to."""
        self._log_level = log_level
        self._has_died = False
        self._jobs: dict[str, Job] = {}  # by the id of each request that has not ended
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
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

        Raises ConfigError with the engine's message if startup fails."""
        assert self._channel is None, "the engine is running"
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._channel = Channel(ours)
        self._ready = loop.create_future()
        loop.add_reader(self._channel.fileno(), self._on_readable)
        self._send(Begin(self.config, self._log_level))
        try:
            self.info = await self._ready
        except BaseException:
            await self.stop()
            raise
        return self.info

    async def stop(self, reason: str = "the engine was stopped while this request ran") -> None:
        """Ends the process; requests that still run fail with EngineDeadError and `reason`."""
        self._is_stopping = True
        self._disconnect(reason)
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await asyncio.to_thread(process.wait, _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
            if self._has_died:
                self._has_died = False
                _log.error("the engine process exited unexpectedly with code %d", process.returncode)
        self._is_stopping = False

    def add(self, requests: Sequence[Request]) -> Job:
        """Sends checked requests, each with a new id, to the engine. Raises EngineDeadError."""
        if not self.is_alive:
            raise EngineDeadError("the engine is not running")
        job = Job(requests, self._leave)
        for request in requests:
            assert request.request_id not in self._jobs, f"{request.request_id} is in use"
            self._jobs[request.request_id] = job
            self._send(Add(request))
        return job

    def _leave(self, request_id: str) -> None:
        if self._jobs.pop(request_id, None) is not None and self.is_alive:
            self._send(Abort(request_id))

    def _send(self, message: object) -> None:
        assert self._channel is not None
        try:
            self._channel.send(message)
        except OSError:
            return  # the process has exited; _on_readable will notice
        if self._channel.has_backlog:
            asyncio.get_running_loop().add_writer(self._channel.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        assert self._channel is not None
        try:
            self._channel.flush()
        except OSError:
            self._channel_lost()
            return
        if not self._channel.has_backlog:
            asyncio.get_running_loop().remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        assert self._channel is not None
        try:
            messages = self._channel.receive()
        except (EOFError, OSError):
            self._channel_lost()
            return
        for message in messages:
            if isinstance(message, Turn):
                self._on_turn(message)
            else:
                self._on_ready(message)

    def _on_ready(self, message: EngineInfo | Failed) -> None:
        assert self._ready is not None
        if self._ready.done():
            return
        if isinstance(message, EngineInfo):
            self._ready.set_result(message)
        else:
            kind = ConfigError if message.is_users_fault else EngineDeadError
            self._ready.set_exception(kind(message.message))

    def _on_turn(self, turn: Turn) -> None:
        jobs = self._jobs
        for answer in turn.answers:
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
        if turn.stats is not None and self.on_stats is not None:
            self.on_stats(turn.stats)

    def _channel_lost(self) -> None:
        is_death = not self._is_stopping
        self._has_died = is_death and self.info is not None
        self._disconnect("the engine process died while this request ran")
        if is_death and self.on_death is not None:
            self.on_death()

    def _disconnect(self, reason: str) -> None:
        if self._channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel.fileno())
            loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._channel = None
        self.info = None
        error = EngineDeadError(reason)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(EngineDeadError("the engine process exited during startup"))
        jobs, self._jobs = self._jobs, {}
        for job in dict.fromkeys(jobs.values()):
            job.fail(error)
