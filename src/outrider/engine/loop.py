"""The engine's turns: orders from outside first, then a step; waits only where there is nothing to do.

Whoever runs the loop, a thread (`async_llm.py`) or a process (`engine/process.py`), alone touches the engine. Orders
come from an inbox; what a request adds goes to whoever submitted it. Knows neither threads nor sockets.
"""

from collections.abc import Callable
from typing import Protocol

from outrider.core.errors import OutriderError, RequestError
from outrider.core.outputs import OutputDelta
from outrider.core.request import Request
from outrider.engine.engine import Engine

Order = Callable[[], None]
Tell = Callable[[OutputDelta | BaseException], None]


class Inbox(Protocol):
    """Where orders come from."""

    def get(self, *, block: bool) -> Order | None:
        """The next order, None where there is none yet; `block` waits for one. Raises StopLoop for the last."""
        ...


class StopLoop(Exception):  # noqa: N818 - no error
    """No more orders: the loop ends before its next step."""


class EngineLoop:
    """One engine, the requests that run on it, and who listens to each."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_over = False
        self.failed: BaseException | None = None
        """What ended the loop, where that was no order."""
        self._listeners: dict[str, Tell] = {}  # by request id

    def submit(self, request: Request, tell: Tell) -> None:
        """Queue a checked request; its deltas are told, or what ended the engine. Raises RequestError."""
        name = request.request_id

        def on_delta(delta: OutputDelta) -> None:
            if delta.output is not None:
                self._listeners.pop(name, None)
            tell(delta)

        self.engine.add(request, on_delta=on_delta)
        self._listeners[name] = tell

    def leave(self, name: str, tell: Tell) -> None:
        """Abort what nobody listens to; another request may have the name by now."""
        if self._listeners.get(name) is tell:
            self.engine.abort(name)

    def ending(self) -> OutriderError:
        """What a request is told that came too late, or was still running."""
        return RequestError("the engine has stopped. Make a new one.")

    def run(self, inbox: Inbox, *, after_turn: Callable[[], None] | None = None) -> None:
        """Turn until told to stop, or until the engine fails; `after_turn` follows every turn."""
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
