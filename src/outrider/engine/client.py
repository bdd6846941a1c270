"""The engine's process as asyncio sees it: start it, give it requests, hear what they add, notice when it dies.

What a request adds while nobody takes it is merged, so that a slow reader costs the others nothing, and holds at most
one request's output. Knows nothing of HTTP and of text.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError, OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.request import Request
from outrider.engine.channel import Channel
from outrider.engine.messages import Abort, Add, Added, Begin, EngineInfo, Failed, Turn
from outrider.engine.stats import EngineStats

_PROGRAM = "import sys; from outrider.engine.process import main; main(int(sys.argv[1]))"
_STOP_SECONDS = 10.0
"""How long the process may take to end by itself."""


class EngineDeadError(OutriderError):
    """The engine's process is gone, or was not started yet."""


class Job:
    """Some requests of one caller, all taken or none, and what they add: merged while the caller takes nothing."""

    def __init__(self, requests: Sequence[Request], leave: Callable[[str], None]) -> None:
        self.requests = list(requests)
        self.index_of = {request.request_id: index for index, request in enumerate(requests)}
        self.on_request_over: Callable[[Request], None] | None = None
        """Called once for each request, when it has ended or was left."""
        self._leave = leave
        self._not_added = set(self.index_of)
        self._running = dict.fromkeys(self.index_of)
        self._pending: dict[tuple[str, int], OutputDelta] = {}  # by request and choice, in the order in which they came
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, delta: OutputDelta) -> None:
        """Another delta of the engine."""
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
        """The engine has taken a request."""
        self._not_added.discard(request_id)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing more will come; requests that still run are taken back."""
        self._error = error
        self.close()

    def close(self) -> None:
        """Nobody listens any more: the engine takes back what still runs."""
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
        """Until the engine has taken every request. Raises RequestError where it refuses one, or EngineDeadError."""
        while self._not_added and self._error is None and self._running:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def take(self) -> list[OutputDelta]:
        """What is new, one delta for each completion that has something; [] once all has been taken, or `close`.

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
    """Both in the second, with the lists of the first; nobody else has either."""
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

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.info: EngineInfo | None = None
        """What the engine said of itself; None before it stands."""
        self.on_stats: Callable[[EngineStats], None] | None = None
        """Called with every snapshot of the engine's counts."""
        self.on_death: Callable[[], None] | None = None
        """Called when the process has gone without being asked to."""
        self._jobs: dict[str, Job] = {}  # by the id of each request that has not ended
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        """True from the moment when it can serve until it is gone."""
        return self._channel is not None and self.info is not None

    @property
    def num_requests(self) -> int:
        """Requests that have not ended in the engine."""
        return len(self._jobs)

    async def start(self) -> EngineInfo:
        """Start the process and wait until the engine stands. Raises ConfigError with what it says if it cannot."""
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
        self._send(Begin(self.config))
        try:
            self.info = await self._ready
        except BaseException:
            await self.stop()
            raise
        return self.info

    async def stop(self, reason: str = "the engine was stopped while this request ran") -> None:
        """End the process; what still runs ends with EngineDeadError and the reason."""
        self._is_stopping = True
        self._disconnect(reason)
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await asyncio.to_thread(process.wait, _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        self._is_stopping = False

    def add(self, requests: Sequence[Request]) -> Job:
        """Hand checked requests to the engine; ids are never used twice. Raises EngineDeadError."""
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
            return  # it is gone; the reader will notice
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
        self._disconnect("the engine has died while this request ran")
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
            self._ready.set_exception(EngineDeadError("the engine has died before it stood"))
        jobs, self._jobs = self._jobs, {}
        for job in dict.fromkeys(jobs.values()):
            job.fail(error)
