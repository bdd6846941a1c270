"""How long steps of pure decoding take, as the host sees it: from the end of the step before, or from the launch.

Tells a draft policy. Where a launch returns only when its step has ended (a CPU), the launch is the step.
"""

import time

from outrider.core.plan import StepPlan
from outrider.device.readback import Handle
from outrider.scheduler.draft_policy import DraftPolicy


class StepClock:
    """Begins at each launch, ends when results are there. Steps end in the order of their launches."""

    def __init__(self, policy: DraftPolicy) -> None:
        self._policy = policy
        self._launches: dict[int, float] = {}  # step id -> seconds
        self._last_end = 0.0

    def begin(self) -> float:
        """Right before a launch."""
        return time.perf_counter()

    def launched(self, handle: Handle, begin: float) -> None:
        """Right after it."""
        if handle.is_ended_at_launch:
            self._tell(handle.plan, time.perf_counter() - begin)
        else:
            self._launches[handle.plan.step_id] = begin

    def ended(self, handle: Handle) -> None:
        """Right after its results were waited for."""
        if handle.is_ended_at_launch:
            return
        now = time.perf_counter()
        begin = max(self._launches.pop(handle.plan.step_id), self._last_end)
        self._last_end = now
        self._tell(handle.plan, now - begin)

    def _tell(self, plan: StepPlan, seconds: float) -> None:
        rows = plan.rows
        if all(row.does_sample and row.num_tokens == 1 + row.num_drafts for row in rows):
            self._policy.see_step(
                num_rows=len(rows),
                num_drafts=max(row.num_drafts for row in rows),
                num_proposals=plan.num_proposals,
                seconds=seconds,
            )
