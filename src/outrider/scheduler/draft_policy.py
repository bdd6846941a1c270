"""How many drafts a step makes for the next one: always k, or what load and acceptance make worth their time.

One number for all rows of a step, so that steps keep to few shapes. Whatever is chosen, tokens are the same: drafts
are accepted by equality. Knows requests and seconds; no device, no drafter.

    step n      makes num_proposals drafts for each row        chosen when n is planned, one step before n - 1 is read
    step n + 1  verifies them
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from outrider.core.request import Request
from outrider.scheduler.step_times import StepTimes


class DraftPolicy(Protocol):
    """Chooses for each step, and is told what came of it."""

    def choose(self, requests: Sequence[Request]) -> int:
        """Drafts that a step makes, by the requests that sample in it and so have another one."""
        ...

    def see_row(self, request: Request, *, num_drafts: int, num_accepted: int) -> None:
        """A settled row verified up to `num_drafts` drafts."""
        ...

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        """A settled step of pure decoding verified `num_drafts` a row, and made `num_proposals`."""
        ...


class FixedDrafts:
    """Always the same number."""

    def __init__(self, num_drafts: int) -> None:
        self._num_drafts = num_drafts

    def choose(self, requests: Sequence[Request]) -> int:
        return self._num_drafts

    def see_row(self, request: Request, *, num_drafts: int, num_accepted: int) -> None:
        pass

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        pass


_PRIOR = 0.7
"""Before any data: share of drafts that are accepted where those before them were."""
_OF_ALL = 1 / 512
"""Weight of a row in the acceptance of all."""
_OF_REQUEST = 1 / 128
"""Weight of a step in what a request differs by."""

_LEAST_GAIN = 0.005
"""By so much another number must be better: a change has its own small price."""

_TRIAL_STEPS = 2
"""Steps of a trial: in the second, as many drafts are verified as made."""
_SHARE = 0.005
"""Of all time, what trials may lose by the present estimates."""
_HEAD_START = 4.0
"""Steps' worth of time that they may lose besides, at each load that is met for the first time."""
_LEAST_LOSS = 0.05
"""Share of its time that a trial counts as lost at least: what nearly ties is not tried all the time."""


class AdaptiveDrafts:
    """As many drafts, of a few allowed numbers, as give the most expected tokens per second.

        tokens(w)  = Σ over rows (1 + Σ over i ≤ w of the estimated chance that drafts 1 … i are all accepted)
        choice     = argmax over w of tokens(w) / seconds(rows, w)

    A chance is that of all requests plus what the request differs by. It shows only where drafts are made: behind the
    last one, the estimate falls as a geometric series. So larger numbers are tried now and then, as far as a budget
    allows, unless even hopeful estimates leave them behind; and what no time is known of.
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
        self.elapsed = 0.0
        """Seconds of decoding so far."""
        self.lost = 0.0
        """Seconds that trials have lost, by the estimates when they began."""
        self.head_start = 0.0
        """Seconds that they may lose besides their share of the time."""
        self._place = len(self.widths) - 1  # of the number that is best so far
        self._trial = 0  # place of the number on trial
        self._trial_left = 0
        self._num_choices = 0
        self._loads: set[int] = set()  # buckets of rows met; only asked, never listed
        self._tried: dict[tuple[int, int], int] = {}  # bucket of rows, place -> when it was last chosen

    def choose(self, requests: Sequence[Request]) -> int:
        if not requests:
            return self.widths[self._place]
        self._num_choices += 1
        num_rows = len(requests)
        tokens, seconds = self._expected_tokens(requests), self.times.seconds(num_rows)
        rates = [count / time for count, time in zip(tokens, seconds, strict=True)]
        best = max(range(len(rates)), key=rates.__getitem__)
        if rates[best] > rates[self._place] * (1 + _LEAST_GAIN):
            self._place = best
        if self._trial_left == 0:
            self._start_trial(num_rows, tokens=tokens, seconds=seconds)
        chosen = self._place
        if self._trial_left:
            self._trial_left -= 1
            chosen = self._trial
        self._tried[self.times.bucket(num_rows), chosen] = self._num_choices
        return self.widths[chosen]

    def _expected_tokens(self, requests: Sequence[Request]) -> list[float]:
        """Of a step of all these requests, for each of the widths."""
        num_rows = len(requests)
        differences = [request.acceptance for request in requests if request.acceptance]
        sums = [sum(column) for column in zip(*differences, strict=True)] or [0.0] * len(self.acceptance)
        gains = [num_rows * chance + more for chance, more in zip(self.acceptance, sums, strict=True)]
        for request in requests:
            for place in range(self._most_of(request), len(gains)):
                gains[place] -= self.acceptance[place]  # a draft that it does not want is worth nothing
        return [num_rows + sum(gains[:width]) for width in self.widths]

    def _most_of(self, request: Request) -> int:
        asked = request.params.num_speculative_tokens
        return len(self.acceptance) if asked is None else asked

    def _start_trial(self, num_rows: int, *, tokens: Sequence[float], seconds: Sequence[float]) -> None:
        """Try what was not tried here for longest, if its expected loss fits the budget."""
        if not self.times.has_measurement:
            return
        best, bucket = self._place, self.times.bucket(num_rows)
        if bucket not in self._loads:
            self._loads.add(bucket)
            self.head_start += _HEAD_START * seconds[best]
        rate = tokens[best] / seconds[best]
        hopes = self._hopes(num_rows, tokens)

        def is_open(place: int) -> bool:
            is_measured = self.times.is_measured(num_rows, self.widths[place])
            return not is_measured or (place > best and hopes[place] / seconds[place] > rate)

        def loss_of(place: int) -> float:
            lost = _TRIAL_STEPS * (seconds[place] - tokens[place] / rate) + abs(seconds[place] - seconds[best])
            return max(lost, _TRIAL_STEPS * _LEAST_LOSS * seconds[best])

        others = [place for place in range(len(self.widths)) if place != best and is_open(place)]
        if not others:
            return
        place = min(others, key=lambda other: (self._tried.get((bucket, other), 0), loss_of(other)))
        loss = loss_of(place)
        if self.lost + loss <= _SHARE * self.elapsed + self.head_start:
            self.lost += loss
            self._trial, self._trial_left = place, _TRIAL_STEPS

    def _hopes(self, num_rows: int, tokens: Sequence[float]) -> list[float]:
        """Tokens of a step of each width, if each draft that it has more than the next smaller one were accepted as
        often as is believed of the last of those."""
        hopes, gain = [tokens[0]], float(num_rows)
        for (narrow, few), (wide, many) in pairwise(zip(self.widths, tokens, strict=True)):
            hopes.append(few + gain * (wide - narrow))
            gain = (many - few) / (wide - narrow)
        return hopes

    def see_row(self, request: Request, *, num_drafts: int, num_accepted: int) -> None:
        if num_drafts == 0:
            return
        if not request.acceptance:
            request.acceptance = [0.0] * len(self.acceptance)
        overall, own = self.acceptance, request.acceptance
        first = before = overall[0] + own[0]
        for place in range(self._most_of(request)):
            believed = overall[place] + own[place]
            seen = float(place < num_accepted) if place < num_drafts else before * first
            before = believed
            overall[place] += _OF_ALL * (seen - believed)
            own[place] += _OF_REQUEST * (seen - believed)

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        self.elapsed += seconds
        if num_drafts == num_proposals and num_drafts in self.widths:
            self.times.record(num_rows, num_drafts, seconds)
