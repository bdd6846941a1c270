"""Times steps of pure decoding on the host, from the end of the previous step or from the launch, the later of the two.

Reports to a draft policy. If a launch returns only when its step has ended (a CPU), the time is that of the launch, and
the times of all steps are learned, with what the host does with their results: both hold up the next step.
"""

import time

from outrider.core.plan import StepPlan
from outrider.device.readback import Handle
from outrider.scheduler.draft_policy import DraftPolicy
from outrider.scheduler.work_times import Work, WorkTimes


class StepClock:
    """Starts at each launch and stops when the results are available. Steps end in the order of their launches."""

    def __init__(self, policy: DraftPolicy, work_times: WorkTimes | None = None) -> None:
        """`work_times`: learns, if launches return when their steps have ended."""
        self._policy = policy
        self._work_times = work_times
        self._launches: dict[int, float] = {}  # step id -> time of its launch, or on a CPU the seconds that it took
        self._last_end = 0.0

    def begin(self) -> float:
        """Return the time. Call it right before a launch, and before results are passed on."""
        return time.perf_counter()

    def launched(self, handle: Handle, begin: float) -> None:
        """Record a launch. Call it right after the launch."""
        if handle.is_ended_at_launch:
            seconds = time.perf_counter() - begin
            self._tell(handle.plan, seconds)
            if self._work_times is not None:
                self._launches[handle.plan.step_id] = seconds
        else:
            self._launches[handle.plan.step_id] = begin

    def ended(self, handle: Handle) -> None:
        """Record the end of a step. Call it right after waiting for its results."""
        if handle.is_ended_at_launch:
            return
        now = time.perf_counter()
        begin = max(self._launches.pop(handle.plan.step_id), self._last_end)
        self._last_end = now
        self._tell(handle.plan, now - begin)

    def settled(self, handle: Handle, begin: float) -> None:
        """Record that the results of a step, which the host got at `begin`, have been passed on."""
        if self._work_times is not None and handle.is_ended_at_launch:
            seconds = self._launches.pop(handle.plan.step_id) + time.perf_counter() - begin
            self._work_times.observe(Work.of(handle.plan.rows), seconds)

    def _tell(self, plan: StepPlan, seconds: float) -> None:
        rows = plan.rows
        if all(row.does_sample and row.num_tokens == 1 + row.num_drafts for row in rows):
            self._policy.see_step(
                num_rows=len(rows),
                num_drafts=max(row.num_drafts for row in rows),
                num_proposals=plan.num_proposals,
                seconds=seconds,
            )
