"""The engine's turns: each handles the orders from outside, then runs a step; waits only if there is nothing to do.

Only the process that runs the loop (`engine/process.py`) touches the engine. Orders come from an inbox; a request's
deltas go to the listener that its caller gave. Knows neither threads nor sockets.
"""

from collections.abc import Callable
from typing import Any, Protocol

from outrider.core.errors import OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.pooling import PoolingRequestOutput
from outrider.core.request import Request
from outrider.engine.engine import Engine

Order = Callable[[], None]
Tell = Callable[[OutputDelta | BaseException], None]
TellPooled = Callable[[PoolingRequestOutput], None]


class Inbox(Protocol):
    """Source of orders."""

    def get(self, *, block: bool) -> Order | None:
        """The next order, or None if there is none yet; `block` waits for one. Raises StopLoop when no more come."""
        ...


class StopLoop(Exception):  # noqa: N818 - it is not an error
    """No more orders: the loop ends before its next step."""


class EngineLoop:
    """One engine, the requests that run on it, and the listener of each."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_over = False
        self.failed: BaseException | None = None
        """The error that ended the loop; None if an order did."""
        self._listeners: dict[str, Tell] = {}  # by request id

    def submit(self, request: Request, tell: Tell, *, prepared: Any = None) -> None:
        """Queue a checked request; `tell` gets its deltas, or the error that ended the engine. `prepared`: see
        `Engine.preparation`. Raises RequestError."""
        name = request.request_id

        def on_delta(delta: OutputDelta) -> None:
            if delta.output is not None:
                self._listeners.pop(name, None)
            tell(delta)

        self.engine.add(request, on_delta=on_delta, prepared=prepared)
        self._listeners[name] = tell

    def pool(self, request: Request, tell: TellPooled) -> None:
        """Queue a checked pooling request; `tell` gets its output. Raises RequestError."""
        self.engine.pool(request, tell)

    def ending(self) -> OutriderError:
        """Error for a request that came too late, or was still running."""
        return RequestError("the engine has stopped. Make a new one.")

    def run(self, inbox: Inbox, *, after_turn: Callable[[], None] | None = None) -> None:
        """Run turns until an order to stop, or until the engine fails; `after_turn` is called after each."""
        try:
            while True:
                order = inbox.get(block=not self.engine.has_work)
                while order is not None:
                    order()
                    order = inbox.get(block=False)
                if self.engine.has_work:
                    self.engine.step()
                if after_turn is not None:
                    after_turn()
        except StopLoop:
            pass
        except Exception as error:
            self.failed = error
        self.is_over = True
        for tell in list(self._listeners.values()):
            tell(self.failed or self.ending())
        self._listeners.clear()
