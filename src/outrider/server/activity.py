"""One log line for every ten seconds in which something happened, so that a person sees that the server works.

It says how many requests were answered and refused, the tokens per second, who runs and waits, and what drafts gave.
Knows counts; never a text or a key.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.core.draft_cost import DraftCost
from outrider.engine.stats import EngineStats
from outrider.server.guards import GUARDED

SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Activity:
    """Counts of responses below the paths that use the model."""

    num_answered: int = 0
    num_refused: int = 0

    def note(self, status: int) -> None:
        """Count a response of this status."""
        if status < 400:
            self.num_answered += 1
        else:
            self.num_refused += 1


class Noted:
    """Counts the response of every request below the paths that use the model."""

    def __init__(self, app: ASGIApp, *, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._activity.note(message["status"])
            await send(message)

        is_noted = scope["type"] == "http" and scope["path"].startswith(GUARDED)
        await self._app(scope, receive, noting if is_noted else send)


class Reporter:
    """Makes a line of what has changed since the line before."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._last = (0, 0, 0, 0, 0, 0)

    def line(self, stats: EngineStats | None, seconds: float, *, draft_cost: DraftCost | None = None) -> str | None:
        """The line for the last `seconds`; None if nothing happened. `draft_cost`: if the engine has measured it."""
        drafts = stats.speculation if stats is not None else None
        now = (
            self._activity.num_answered,
            self._activity.num_refused,
            stats.num_prompt_tokens if stats is not None else 0,
            stats.num_generation_tokens if stats is not None else 0,
            drafts.num_drafts if drafts is not None else 0,
            drafts.num_accepted_tokens if drafts is not None else 0,
        )
        # a restarted engine counts from zero
        answered, refused, prompt, output, num_drafts, accepted = (
            new - old if new >= old else new for new, old in zip(now, self._last, strict=True)
        )
        self._last = now
        if not any((answered, refused, prompt, output)):
            return None
        parts = [f"{answered} request{'' if answered == 1 else 's'} answered"]
        if refused:
            parts[0] += f", {refused} refused"
        parts.append(f"{prompt / seconds:.0f} prompt and {output / seconds:.0f} output tokens/s")
        if stats is not None:
            parts.append(f"{stats.num_running} running, {stats.num_waiting} waiting")
        if num_drafts:
            length = 1 + accepted / num_drafts
            parts.append(f"acceptance length {length:.2f}")
            if draft_cost is not None and draft_cost.exceeds(length):
                parts.append(f"drafts cost more time than they save: {draft_cost.figures}")
        return f"last {seconds:.0f} s: {'; '.join(parts)}"


async def report(
    activity: Activity, stats: Callable[[], EngineStats | None], *, draft_cost: Callable[[], DraftCost | None]
) -> None:
    """Log a line from time to time, until cancelled."""
    reporter = Reporter(activity)
    while True:
        await asyncio.sleep(SECONDS)
        line = reporter.line(stats(), SECONDS, draft_cost=draft_cost())
        if line is not None:
            _log.info("%s", line)
