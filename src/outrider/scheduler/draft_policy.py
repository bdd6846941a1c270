"""Policies that choose the number of drafts per step: always k, or as many as pay at the current load and acceptance.

All rows of a step make the same number, so that steps have few shapes. The choice does not change the tokens: drafts
are accepted by equality. Knows requests and seconds; no device, no drafter.

    step n      makes num_proposals drafts for each row        chosen when n is planned, one step before n - 1 is read
    step n + 1  verifies them
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import truediv
from typing import Protocol

from outrider.scheduler.request_state import RequestState
from outrider.scheduler.step_times import StepTimes


class DraftPolicy(Protocol):
    """Chooses the number of drafts for each step, and is passed the results of the step."""

    def choose(self, requests: Sequence[RequestState]) -> int:
        """Number of drafts that a step makes for `requests`, which sample in it and verify them in their next one."""
        ...

    def see_row(self, state: RequestState, *, num_drafts: int, num_accepted: int) -> None:
        """Record a settled row that verified up to `num_drafts` drafts."""
        ...

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        """Record a settled step of pure decoding that verified `num_drafts` drafts a row and made `num_proposals`."""
        ...


class FixedDrafts:
    """Always chooses the same number."""

    def __init__(self, num_drafts: int) -> None:
        self._num_drafts = num_drafts

    def choose(self, requests: Sequence[RequestState]) -> int:
        return self._num_drafts

    def see_row(self, state: RequestState, *, num_drafts: int, num_accepted: int) -> None:
        pass

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        pass


_PRIOR = 0.7
"""Chance that a draft is accepted if those before it were: the estimate before any data."""
_OF_ALL = 1 / 512
"""Weight of one row in the acceptance of all requests."""
_FIRST_STEPS, _LAST_STEPS = 8, 128
"""Steps over which the difference between a request and all requests is averaged: at its beginning, and at most."""

_PRICE = 1.0
"""Cost of a change, as a multiple of the difference between the times of the two steps: the first step after a change
runs with the larger number."""
_LEAST_PRICE = 0.05
"""Minimum cost of a change, in steps."""

_TRIAL_STEPS = 3
"""Steps of a trial: from the second on, a step verifies as many drafts as it makes."""
_SHARE = 0.005
"""Share of all decoding time that trials may lose, by the current estimates."""
_HEAD_START = 4.0
"""Time, in steps, that trials of numbers with uncertain times may lose, at each new load."""
_LEAST_LOSS = 0.05
"""Minimum loss of a trial, as a share of its time: numbers that are nearly as good are not tried all the time."""


class AdaptiveDrafts:
    """Chooses, from a few allowed numbers of drafts, the one with the most expected tokens per second.

        tokens(w)  = Σ over rows (1 + Σ over i ≤ w of the estimated chance that drafts 1 … i are all accepted)
        choice     = argmax over w of tokens(w) / seconds(rows, w)

    A chance is the estimate over all requests plus the request's difference from it. It is observed only for drafts
    that are made: after the last one, the estimate falls as a geometric series. So larger numbers are tried now and
    then, as far as a budget allows, unless they are slower even by optimistic estimates; and numbers without a measured
    time are tried too.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        row_buckets: Sequence[int],
        known: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        """`widths`: allowed numbers of drafts, ascending; `row_buckets` and `known` as in `StepTimes`."""
        self.widths = tuple(widths)
        self.times = StepTimes(widths, row_buckets, known)
        self.acceptance = [_PRIOR ** (place + 1) for place in range(self.widths[-1])]
        """Estimate over all requests: the chance that drafts 1 … i are all accepted."""
        self._like_all = [0.0] * len(self.acceptance)
        self.elapsed = 0.0
        """Seconds of decoding so far."""
        self.lost = 0.0
        """Seconds that trials have lost, by the estimates when they began."""
        self.head_start = 0.0
        """Seconds that trials may lose to measure uncertain times."""
        self.lost_on_times = 0.0
        """Seconds that trials have lost to measure uncertain times."""
        self._place = len(self.widths) - 1  # of the best number so far
        self._missed = [0.0] * len(self.widths)  # seconds that each number would have saved since the last change
        self._trial = 0  # place of the number on trial
        self._trial_left = 0
        self._num_choices = 0
        self._loads: set[int] = set()  # buckets of rows seen; membership tests only, never iterated
        self._tried: dict[tuple[int, int], int] = {}  # bucket of rows, place -> when it was last chosen

    def choose(self, requests: Sequence[RequestState]) -> int:
        if not requests:
            return self.widths[self._place]
        self._num_choices += 1
        num_rows = len(requests)
        tokens, seconds = self._expected_tokens(requests), self.times.seconds(num_rows)
        rates = [count / time for count, time in zip(tokens, seconds, strict=True)]
        self._place = self._best(rates, seconds)
        if self._trial_left == 0:
            self._start_trial(num_rows, tokens=tokens, seconds=seconds)
        chosen = self._place
        if self._trial_left:
            self._trial_left -= 1
            chosen = self._trial
        self._tried[self.times.bucket(num_rows), chosen] = self._num_choices
        return self.widths[chosen]

    def _best(self, rates: Sequence[float], seconds: Sequence[float]) -> int:
        """Place of the number to continue with: it changes when staying has cost as much as the change will."""
        now = self._place
        for place, rate in enumerate(rates):
            missed = (rate / rates[now] - 1.0) * seconds[now]
            self._missed[place] = max(0.0, self._missed[place] + missed)
        best = max(range(len(rates)), key=rates.__getitem__)
        price = _PRICE * abs(seconds[best] - seconds[now]) + _LEAST_PRICE * seconds[now]
        if best == now or (self._num_choices > 1 and self._missed[best] < price):
            return now
        self._missed = [0.0] * len(rates)
        return best

    def _expected_tokens(self, requests: Sequence[RequestState]) -> list[float]:
        """Expected tokens of a step of each width, if all requests advanced in their current proportions."""
        differences = [self._difference(state) for state in requests]
        sums = [1.0] * len(requests)  # tokens of each request
        of_width = {0: sums}
        for place, (chance, column) in enumerate(zip(self.acceptance, zip(*differences, strict=True), strict=True)):
            sums = [tokens + chance + difference for tokens, difference in zip(sums, column, strict=True)]
            of_width[place + 1] = sums
        now = of_width[self.widths[self._place]]
        most = sum(now) * len(requests)
        return [most / sum(map(truediv, now, of_width[width])) for width in self.widths]

    def _difference(self, state: RequestState) -> Sequence[float]:
        """A request's chances minus those of all requests; drafts that it does not ask for count nothing."""
        own, most = state.acceptance or self._like_all, self._most_of(state)
        return own if most == len(own) else own[:most] + [-chance for chance in self.acceptance[most:]]

    def _most_of(self, state: RequestState) -> int:
        asked = state.params.num_speculative_tokens
        return len(self.acceptance) if asked is None else asked

    def _start_trial(self, num_rows: int, *, tokens: Sequence[float], seconds: Sequence[float]) -> None:
        """Start a trial of the least recently tried number at this load, if its expected loss fits the budget."""
        if not self.times.has_measurement:
            return
        best, bucket = self._place, self.times.bucket(num_rows)
        if bucket not in self._loads:
            self._loads.add(bucket)
            self.head_start += _HEAD_START * seconds[best]
        rate = tokens[best] / seconds[best]
        hopes = self._hopes(num_rows, tokens)

        def is_open(place: int) -> bool:
            doubt = self.times.doubt(num_rows, self.widths[place])
            hope = hopes[place] if place > best else tokens[place]
            return (place > best or doubt > 0.0) and hope / seconds[place] * (1.0 + doubt) > rate

        def loss_of(place: int) -> float:
            lost = _TRIAL_STEPS * (seconds[place] - tokens[place] / rate) + abs(seconds[place] - seconds[best])
            return max(lost, _TRIAL_STEPS * _LEAST_LOSS * seconds[best])

        others = [place for place in range(len(self.widths)) if place != best and is_open(place)]
        if not others:
            return
        place = min(others, key=lambda other: (self._tried.get((bucket, other), 0), loss_of(other)))
        loss = loss_of(place)
        if self.times.doubt(num_rows, self.widths[place]) and self.lost_on_times + loss <= self.head_start:
            self.lost_on_times += loss
        elif self.lost + loss <= _SHARE * self.elapsed:
            self.lost += loss
        else:
            return
        self._trial, self._trial_left = place, _TRIAL_STEPS

    def _hopes(self, num_rows: int, tokens: Sequence[float]) -> list[float]:
        """Optimistic tokens of a step of each width: each draft beyond the next smaller width counts as accepted as
        often as the last drafts of that width are estimated to be."""
        hopes, gain = [tokens[0]], float(num_rows)
        for (narrow, few), (wide, many) in pairwise(zip(self.widths, tokens, strict=True)):
            hopes.append(few + gain * (wide - narrow))
            gain = (many - few) / (wide - narrow)
        return hopes

    def see_row(self, state: RequestState, *, num_drafts: int, num_accepted: int) -> None:
        if num_drafts == 0:
            return
        if not state.acceptance:
            state.acceptance = list(self._like_all)
        overall, own = self.acceptance, state.acceptance
        of_request = 1.0 / min(_FIRST_STEPS + state.speculation.num_drafts, _LAST_STEPS)
        first = before = overall[0] + own[0]
        for place in range(self._most_of(state)):
            believed = overall[place] + own[place]
            seen = float(place < num_accepted) if place < num_drafts else before * first
            before = believed
            overall[place] += _OF_ALL * (seen - believed)
            own[place] += of_request * (seen - believed)

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        self.elapsed += seconds
        if num_drafts == num_proposals and num_drafts in self.widths:
            self.times.record(num_rows, num_drafts, seconds)
