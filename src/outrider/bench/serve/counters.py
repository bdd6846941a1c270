"""The server's own counters for a run: the difference of its /metrics page before and after.

Understands the names of vLLM, SGLang and Outrider, as the gate does. A server without such counters is not an error;
the note says so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from outrider.core.errors import OutriderError
from outrider.gate.metrics_page import Reading

SETTLE_SECONDS = 5.0
"""Seconds that counters may lag behind the last answer."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Counts of speculative decoding during a run; None or empty if the server does not count it."""

    note: str | None = None
    """Why counts are missing or unreliable."""
    num_drafts: int | None = None
    num_draft_tokens: int | None = None
    num_accepted_tokens: int | None = None
    num_accepted_tokens_per_pos: tuple[int, ...] = ()

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted tokens divided by drafted tokens."""
        if not self.num_draft_tokens or self.num_accepted_tokens is None:
            return None
        return self.num_accepted_tokens / self.num_draft_tokens

    @property
    def acceptance_length(self) -> float | None:
        """1 + accepted tokens divided by drafts."""
        if not self.num_drafts or self.num_accepted_tokens is None:
            return None
        return 1.0 + self.num_accepted_tokens / self.num_drafts

    @property
    def acceptance_rate_per_pos(self) -> list[float]:
        """Accepted tokens at position i divided by drafts (unconditional)."""
        drafts = self.num_drafts
        return [count / drafts for count in self.num_accepted_tokens_per_pos] if drafts else []


async def look(reading: Callable[[], Awaitable[Reading]]) -> Reading | str:
    """Reads the page; returns the error's text if it cannot be read."""
    try:
        return await reading()
    except OutriderError as error:
        return str(error)


async def difference(
    reading: Callable[[], Awaitable[Reading]], before: Reading | str, *, num_requests: int, num_tokens: int
) -> Counters:
    """The counts since `before`, read once the server is idle and its counters no longer change."""
    if isinstance(before, str):
        return Counters(note=before)
    deadline = time.monotonic() + SETTLE_SECONDS
    last: Reading | str = ""
    now = await look(reading)
    while time.monotonic() < deadline and (now != last or isinstance(now, str) or not now.is_idle):
        await asyncio.sleep(_POLL_SECONDS)
        last, now = now, await look(reading)
    if isinstance(now, str):
        return Counters(note=now)
    if any(new < old for new, old in zip(now.counters(), before.counters(), strict=False)):
        return Counters(note="a counter decreased during the run: the server was restarted.")
    return _difference(before, now, num_requests=num_requests, num_tokens=num_tokens)


def _difference(before: Reading, after: Reading, *, num_requests: int, num_tokens: int) -> Counters:
    drafts = after.drafts - before.drafts
    if after.accepted is not None and before.accepted is not None:
        accepted = after.accepted - before.accepted
    else:  # SGLang: each verify call and each prompt adds one token of the target
        accepted = max(num_tokens - num_requests - drafts, 0)
    old = (*before.accepted_per_pos, *[0] * len(after.accepted_per_pos))
    per_pos = tuple(new - was for new, was in zip(after.accepted_per_pos, old, strict=False))
    draft_tokens = None
    if after.draft_tokens is not None and before.draft_tokens is not None:
        draft_tokens = after.draft_tokens - before.draft_tokens
    note = None
    generated = after.generation_tokens - before.generation_tokens
    if generated != num_tokens or not after.is_idle:
        note = (
            f"the server counted {generated} generated tokens, but the answers have {num_tokens}: its counters include "
            "failed requests or other traffic."
        )
    return Counters(
        note=note,
        num_drafts=drafts,
        num_draft_tokens=draft_tokens,
        num_accepted_tokens=accepted,
        num_accepted_tokens_per_pos=per_pos,
    )
