"""The limit of a step while it is planned: calls that wait in it for their next tokens wait no longer for the others.

A call is what one caller asks for at once: a prompt, many, or many completions. Each call whose requests decode gets
one row of a step, whatever that takes. Everything else, more rows of these calls and chunks of prompts, must fit into
the time that is left. Without a second call there is no limit. Knows rows and times; no requests, no queue.
"""

from math import inf

from outrider.core.plan import RowPlan
from outrider.scheduler.work_times import Work, WorkTimes

LONGEST_WAIT = 0.030
"""Seconds that a step may take."""
LONGEST_RATIO = 2.0
"""Or this multiple of what one row of each call takes, if that is longer: a large model decodes slowly, too."""

_LEAST_CHUNK = 16
"""Tokens of a prompt that a step computes at least, so that prompts go on: they take hardly longer than one."""


class StepLimit:
    """The work and the limit of a step while it is planned."""

    def __init__(self, times: WorkTimes) -> None:
        self._times = times
        self._work = Work()
        self._limit = inf
        self._calls: set[str] = set()
        self._has_chunk = False

    def put(self, row: RowPlan) -> None:
        """Add a row that is planned."""
        self._work.add(row)
        self._has_chunk = self._has_chunk or row.num_tokens != 1 + row.num_drafts

    def drop(self, row: RowPlan) -> None:
        """Take a row away."""
        self._work.add(row, -1)

    def takes(self, call_id: str, num_tokens: int, *, context: int) -> bool:
        """True if a request of this call may decode `num_tokens` in the step: the first of a call always may, and must
        be asked for before the others."""
        if call_id not in self._calls:
            assert self._limit == inf, "the first request of a call comes after another's second"
            self._calls.add(call_id)
            return True
        self.begin()
        return self._times.most_tokens(self._work, self._limit, context=context, is_scored=True) >= num_tokens

    def begin(self) -> None:
        """From now on what comes must fit."""
        if self._limit == inf and self._work.rows:
            self._limit = max(LONGEST_WAIT, LONGEST_RATIO * self._times.seconds(self._work))

    def most_tokens(self, *, context: int, is_scored: bool = False) -> int:
        """Tokens that one more row may have; 0: none. The first part of a prompt always gets some."""
        if self._limit == inf:
            return 1 << 31
        most = self._times.most_tokens(self._work, self._limit, context=context, is_scored=is_scored)
        return most if self._has_chunk else max(most, _LEAST_CHUNK)
