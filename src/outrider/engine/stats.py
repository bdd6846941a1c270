"""Counters of an engine since it started, as plain data: emitted tokens and real drafts only.

Most of them are read from the counts of the scheduler and the requests when a snapshot is taken, so they cost a step
nothing, and the totals cannot disagree with the outputs that callers got. Knows no clock and no metrics library.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from outrider.core.outputs import FinishReason, SpeculationStats
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler

TURN_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Upper ends of the buckets of `EngineStats.turn_counts`; one more bucket has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot of an engine. Counters only grow while the engine lives."""

    is_exact: bool
    """See `Worker.is_exact`."""
    num_running: int
    num_waiting: int
    num_used_blocks: int
    """KV blocks that requests hold, in all groups of layers."""
    num_blocks: int
    """KV blocks that can be held at once."""
    num_steps: int
    num_replayed_steps: int
    """Part of `num_steps` that was replayed as a captured graph; the others were launched kernel by kernel."""
    num_preemptions: int
    num_prompt_tokens: int
    """Prompt tokens of every completion that has emitted a token, and of every pooling request that has ended; a replay
    after preemption does not count again."""
    num_cached_prompt_tokens: int
    """Part of `num_prompt_tokens` that came from the prefix cache."""
    num_generation_tokens: int
    """Emitted tokens, without those after a stop."""
    num_prefix_queried_tokens: int
    """Known tokens at each admission."""
    num_prefix_hit_tokens: int
    speculation: SpeculationStats
    """Sums over all completions; max_drafts is the engine's k, 0 without a drafter."""
    finished: dict[str, int]
    """Completions by finish reason; every reason is a key."""
    turn_counts: tuple[int, ...]
    """Turns of the loop by their tokens (`TURN_TOKENS`): known tokens computed plus new tokens emitted in the turn."""
    turn_tokens: int
    """Sum of the tokens of those turns."""


class Recorder:
    """Keeps counts that the scheduler no longer has: of finished completions, and the sizes of turns."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        num_replayed_steps: Callable[[], int],
        num_drafts: int,
        is_exact: bool,
        is_synthetic: bool,
    ) -> None:
        self._scheduler = scheduler
        self._num_replayed_steps = num_replayed_steps
        self._num_drafts = num_drafts
        self._is_exact = is_exact
        self._is_synthetic = is_synthetic
        self._over = self._zero()
        self._finished = {reason.value: 0 for reason in FinishReason}
        self._num_seen = 0
        self._turn_counts = [0] * (len(TURN_TOKENS) + 1)

    def _zero(self) -> "_Totals":
        return _Totals(SpeculationStats.zero(self._num_drafts, is_synthetic=self._is_synthetic))

    def finish(self, state: RequestState) -> None:
        """Count a completion that has ended, for any reason."""
        assert state.finish_reason is not None, f"request {state.request_id} is not finished"
        self._finished[state.finish_reason.value] += 1
        self._over.add(state)

    def turn(self) -> None:
        """Count a finished turn of the loop."""
        seen = self._scheduler.num_prefill_tokens + self._scheduler.num_output_tokens
        if seen > self._num_seen:
            self._turn_counts[bisect_left(TURN_TOKENS, seen - self._num_seen)] += 1
            self._num_seen = seen

    def snapshot(self) -> EngineStats:
        """Take a snapshot of all counters; the caller may keep it and send it elsewhere."""
        scheduler = self._scheduler
        totals = self._zero()
        totals.merge(self._over)
        for state in scheduler.requests():
            totals.add(state)
        blocks, prefix = scheduler.blocks, scheduler.prefix
        return EngineStats(
            is_exact=self._is_exact,
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_used_blocks=blocks.num_used,
            num_blocks=blocks.num_usable,
            num_steps=scheduler.num_steps,
            num_replayed_steps=self._num_replayed_steps(),
            num_preemptions=scheduler.num_preemptions,
            num_prompt_tokens=totals.num_prompt_tokens,
            num_cached_prompt_tokens=totals.num_cached_prompt_tokens,
            num_generation_tokens=scheduler.num_output_tokens,
            num_prefix_queried_tokens=prefix.num_queried_tokens,
            num_prefix_hit_tokens=prefix.num_hit_tokens,
            speculation=totals.speculation,
            finished=dict(self._finished),
            turn_counts=tuple(self._turn_counts),
            turn_tokens=self._num_seen,
        )


class _Totals:
    """Sums over completions."""

    def __init__(self, speculation: SpeculationStats) -> None:
        self.speculation = speculation
        self.num_prompt_tokens = 0
        self.num_cached_prompt_tokens = 0

    def add(self, state: RequestState) -> None:
        is_pooled = state.pooling is not None and state.finish_reason is FinishReason.STOP
        if state.num_output_tokens == 0 and not is_pooled:
            return
        self.speculation.add(state.speculation)
        self.num_prompt_tokens += state.num_prompt_tokens
        self.num_cached_prompt_tokens += max(state.num_cached_tokens, 0)

    def merge(self, other: "_Totals") -> None:
        self.speculation.add(other.speculation)
        self.num_prompt_tokens += other.num_prompt_tokens
        self.num_cached_prompt_tokens += other.num_cached_prompt_tokens
