"""The engine in a separate process: `EngineLoop` behind a socket.

It starts with one inherited socket, receives the options, builds the engine and serves until the socket closes, for any
reason. The parent handles signals. The process never waits for its client: data that the socket does not accept at once
is kept and sent later.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from outrider.core import log
from outrider.core.errors import OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingRequestOutput
from outrider.core.request import Request
from outrider.engine.channel import Channel
from outrider.engine.engine import Engine
from outrider.engine.loop import EngineLoop, Order, StopLoop
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
    Refused,
    Stopped,
    Turn,
)
from outrider.engine.stats import EngineStats

_STATS_SECONDS = 0.1
_NUM_COMPILERS = 2
"""Threads that compile grammars while the loop runs; llguidance releases Python's lock."""
_SWITCH_SECONDS = 0.001
"""Time that a compiling thread keeps Python's lock while the loop waits for it. A step gives the lock back hundreds of
times: with Python's own 5 ms it would stand for seconds."""
_log = logging.getLogger(__name__)


class _Log:
    """Records that the client has not been sent yet; any thread may add one."""

    def __init__(self) -> None:
        self._records: deque[logging.LogRecord] = deque()
        self.put = self._records.append

    def send(self, channel: Channel) -> None:
        """Send what there is. Raises OSError if the client has disconnected."""
        records = []
        while self._records:
            records.append(self._records.popleft())
        if records:
            channel.send(Logged(records))


class _Session:
    """One engine and its client: the loop's inbox, and the answers and deltas sent after each turn."""

    def __init__(self, channel: Channel, engine: Engine, records: _Log | None = None) -> None:
        self.loop = EngineLoop(engine)
        self._channel = channel
        self._records = records or _Log()
        self._orders: deque[Order] = deque()
        self._answers: list[Added | Refused | Counted] = []
        self._deltas: list[OutputDelta] = []
        self._pooled: list[PoolingRequestOutput] = []
        self._next_stats = 0.0
        self._wake = channel.make_waker()
        self._compiler = ThreadPoolExecutor(max_workers=_NUM_COMPILERS, thread_name_prefix="grammars")
        self._preparing: dict[str, bool] = {}
        """By id of each request whose grammar is compiled: True if it was aborted meanwhile."""

    def get(self, *, block: bool) -> Order | None:
        """The next order of the client. Raises StopLoop once the client has disconnected."""
        if not self._orders:
            self._read(block=block)
        return self._orders.popleft() if self._orders else None

    def _read(self, *, block: bool) -> None:
        try:
            if block:
                self._channel.wait()
            if self._channel.has_backlog:
                self._channel.flush()
            messages = self._channel.receive()
        except (EOFError, OSError):
            raise StopLoop from None
        for message in messages:
            self._orders.append(partial(self._obey, message))

    def _obey(self, message: Add | Abort | Count) -> None:
        if isinstance(message, Abort):
            if message.request_id in self._preparing:
                self._preparing[message.request_id] = True
            self.loop.engine.abort(message.request_id)
            return
        if isinstance(message, Count):
            self._answers.append(Counted(message.number, self.loop.engine.stats()))
            return
        work = self.loop.engine.preparation(message.request) if message.request.pooling is None else None
        if work is None:
            self._begin(message.request)
            return
        self._preparing[message.request.request_id] = False
        prepare = partial(self._prepare, message.request.request_id, work)
        self._compiler.submit(prepare).add_done_callback(partial(self._on_prepared, message.request))

    def _prepare(self, request_id: str, work: Callable[[], Any]) -> Any:
        """Runs in a thread beside the loop; work for a request that was aborted before it began is left out."""
        return None if self._preparing[request_id] else work()

    def _on_prepared(self, request: Request, result: "Future[Any]") -> None:
        """Orders that the request begins. Called in a thread beside the loop."""
        self._orders.append(partial(self._begin_prepared, request, result))
        self._wake()

    def _begin_prepared(self, request: Request, result: "Future[Any]") -> None:
        if self._preparing.pop(request.request_id):
            # it begins without its grammar, and ends at once: so its caller, who may have stayed, gets its last delta
            self._begin(replace(request, params=replace(request.params, structured_outputs=None), grammar=None))
            self.loop.engine.abort(request.request_id)
            return
        error = result.exception()
        if error is not None:
            self._refuse(request, error)
            return
        self._begin(request, prepared=result.result())

    def _begin(self, request: Request, *, prepared: Any = None) -> None:
        try:
            if request.pooling is not None:
                self.loop.pool(request, self._pooled.append)
            else:
                self.loop.submit(request, self._tell, prepared=prepared)
        except Exception as error:  # any error: it concerns this request only
            self._refuse(request, error)
        else:
            self._answers.append(Added(request.request_id))

    def _refuse(self, request: Request, error: BaseException) -> None:
        if isinstance(error, RequestError):
            self._answers.append(Refused(request.request_id, str(error)))
            return
        _log.error("request %s could not be started", request.request_id, exc_info=error)
        self._answers.append(Refused(request.request_id, "the request cannot be begun; the server's log says why"))

    def _tell(self, delta: OutputDelta | BaseException) -> None:
        if isinstance(delta, OutputDelta):
            self._deltas.append(delta)

    def after_turn(self) -> None:
        """Send the new answers, deltas, counters and records of the log."""
        stats = self._due_stats()
        try:
            self._records.send(self._channel)
            if self._deltas or self._answers or self._pooled or stats is not None:
                self._channel.send(Turn(self._answers, self._deltas, stats, list(self._pooled)))
        except OSError:
            raise StopLoop from None
        self._answers, self._deltas = [], []
        self._pooled.clear()

    def _due_stats(self) -> EngineStats | None:
        """Counters if a snapshot is due: periodically and before waiting, as a snapshot takes time for each request."""
        now, engine = time.monotonic(), self.loop.engine
        if engine.has_work and now < self._next_stats:
            return None
        self._next_stats = now + _STATS_SECONDS
        return engine.stats()


def _describe(engine: Engine) -> EngineInfo:
    worker = engine.worker
    return EngineInfo(
        process_id=os.getpid(),
        description=engine.describe(),
        vocab_size=worker.model_config.vocab_size,
        max_model_len=worker.max_model_len,
        max_num_seqs=worker.config.num_rows,
        eos_token_ids=engine.eos_token_ids,
        num_blocks=engine.scheduler.blocks.num_usable,
        is_exact=worker.is_exact,
        sampling_defaults=engine.sampling_defaults,
        draft_cost=engine.draft_cost(),
        pooling=engine.pooling.abilities if engine.pooling is not None else None,
    )


def _first_message(channel: Channel) -> Begin:
    while True:
        channel.wait()
        for message in channel.receive():
            assert isinstance(message, Begin), f"the first message is {message!r}"
            return message


def main(descriptor: int) -> None:
    """Serve the client at the other end of an inherited socket; exit code 1 if the engine failed."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # a terminal and a supervisor tell the whole group; the parent drains
    sys.setswitchinterval(_SWITCH_SECONDS)
    channel, records = Channel(socket.socket(fileno=descriptor)), _Log()
    try:
        begin = _first_message(channel)
        if isinstance(begin.log_level, str):
            log.configure(begin.log_level)
        else:
            log.forward(begin.log_level, records.put)
        begin.torch_settings.apply()
        engine = Engine(begin.config, skip_tokenizer_init=begin.skip_tokenizer_init)
    except EOFError:
        return
    except Exception as error:
        failed = Failed(str(error), error) if isinstance(error, OutriderError) else Failed(traceback.format_exc(), None)
        with suppress(OSError):  # the parent may have exited meanwhile
            records.send(channel)
            channel.send(failed)
        raise SystemExit(1) from None
    session = _Session(channel, engine, records)
    gc.collect()
    gc.freeze()  # what was made until now stays: a collection that went through it would hold up every stream
    try:
        records.send(channel)
        channel.send(_describe(engine))
    except OSError:  # the parent has exited meanwhile
        return
    channel.send(Turn([], [], engine.stats()))  # the counters are available, at zero, before the first request
    try:
        session.loop.run(session, after_turn=session.after_turn)
    finally:
        gc.unfreeze()  # bindings report objects as leaked that the interpreter cannot free at its end
    if session.loop.failed is not None:
        _log.critical("the engine stopped because of an error", exc_info=session.loop.failed)
        try:
            records.send(channel)
            channel.send(Stopped(repr(session.loop.failed)))
        except OSError:
            pass
        raise SystemExit(1)
