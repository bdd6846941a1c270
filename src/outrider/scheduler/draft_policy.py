"""How many drafts a step makes for the next one: always k, or what load and acceptance make worth their time.

One number for all rows of a step, so that steps keep to few shapes. Whatever is chosen, tokens are the same: drafts
are accepted by equality. Knows requests and seconds; no device, no drafter.

    step n      makes num_proposals drafts for each row        chosen when n is planned, one step before n - 1 is read
    step n + 1  verifies them
"""

from collections.abc import Sequence
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
_OF_REQUEST = 1 / 32
"""Weight of a step in a request's own acceptance."""
_OF_ALL = 1 / 256
"""Weight of a row in the acceptance of all, where a new request begins."""

_LEAST_GAIN = 0.005
"""By so much another number must be better: a change of shape has its own small price."""

_PROBE_STEPS = 2
"""Steps of a trial: in the second, as many drafts are verified as made."""
_SHARE = 0.01
"""Of all time, what trials may lose by the present estimates."""
_HEAD_START = 4.0
"""Steps' worth of time that they may lose besides, at each load that is met for the first time."""
_LEAST_LOSS = 0.05
"""Share of its time that a trial counts as lost at least: what nearly ties is not tried all the time."""


class AdaptiveDrafts:
    """As many drafts, of a few allowed numbers, as give the most expected tokens per second.

        tokens(w)  = Σ over rows (1 + Σ over i ≤ w of the estimated chance that drafts 1 … i are all accepted)
        choice     = argmax over w of tokens(w) / seconds(rows, w)

    What is not run is not learned, so other numbers are tried now and then, as far as a budget allows.
    """

    def __init__(self, widths: Sequence[int], *, row_buckets: Sequence[int]) -> None:
        """`widths`: allowed numbers of drafts, ascending; `row_buckets` as in `StepTimes`."""
        self.widths = tuple(widths)
        self.times = StepTimes(widths, row_buckets)
        self.acceptance = [_PRIOR ** (place + 1) for place in range(self.widths[-1])]
        """Estimate over all requests; a new one begins with it."""
        self.elapsed = 0.0
        """Seconds of decoding so far."""
        self.lost = 0.0
        """Seconds that trials have lost, by the estimates when they began."""
        self.head_start = 0.0
        """Seconds that they may lose besides their share of the time."""
        self._width = self.widths[-1]
        self._trial: int | None = None  # the number on trial
        self._trial_left = 0
        self._num_choices = 0
        self._loads: set[int] = set()  # buckets of rows met; only asked, never listed
        self._tried: dict[tuple[int, int], int] = {}  # bucket of rows, width -> when it was last chosen

    def choose(self, requests: Sequence[Request]) -> int:
        if not requests:
            return self._width
        self._num_choices += 1
        num_rows = len(requests)
        tokens, seconds = self._expected_tokens(requests), self.times.seconds(num_rows)
        rates = [count / time for count, time in zip(tokens, seconds, strict=True)]
        best = max(range(len(rates)), key=rates.__getitem__)
        if rates[best] <= rates[self.widths.index(self._width)] * (1 + _LEAST_GAIN):
            best = self.widths.index(self._width)
        self._width = self.widths[best]
        bucket = self.times.bucket(num_rows)
        if self._trial_left == 0:
            self._start_trial(best, bucket, tokens=tokens, seconds=seconds)
        chosen = self._width
        if self._trial_left:
            assert self._trial is not None
            self._trial_left -= 1
            chosen = self._trial
        self._tried[bucket, chosen] = self._num_choices
        return chosen

    def _expected_tokens(self, requests: Sequence[Request]) -> list[float]:
        """Of a step of all these requests, for each of the widths."""
        for request in requests:
            if not request.acceptance:
                request.acceptance = self._begin(request)
        sums = [sum(column) for column in zip(*[request.acceptance for request in requests], strict=True)]
        return [len(requests) + sum(sums[:width]) for width in self.widths]

    def _begin(self, request: Request) -> list[float]:
        """Its first estimate; drafts that it does not want are worth nothing."""
        asked = request.params.num_speculative_tokens
        most = len(self.acceptance) if asked is None else asked
        return [chance if place < most else 0.0 for place, chance in enumerate(self.acceptance)]

    def _start_trial(self, best: int, bucket: int, *, tokens: Sequence[float], seconds: Sequence[float]) -> None:
        """Try what was not tried here for longest, if its expected loss fits the budget."""
        others = [place for place in range(len(self.widths)) if place != best]
        if not others or not self.times.has_measurement:
            return
        best_rate = tokens[best] / seconds[best]
        if bucket not in self._loads:
            self._loads.add(bucket)
            self.head_start += _HEAD_START * seconds[best]

        def loss_of(place: int) -> float:
            return _PROBE_STEPS * max(seconds[place] - tokens[place] / best_rate, _LEAST_LOSS * seconds[best])

        place = min(others, key=lambda other: (self._tried.get((bucket, self.widths[other]), 0), loss_of(other)))
        loss = loss_of(place)
        if self.lost + loss <= _SHARE * self.elapsed + self.head_start:
            self.lost += loss
            self._trial, self._trial_left = self.widths[place], _PROBE_STEPS

    def see_row(self, request: Request, *, num_drafts: int, num_accepted: int) -> None:
        own, overall = request.acceptance, self.acceptance
        if not own:
            return
        for place in range(num_drafts):
            hit = 1.0 if place < num_accepted else 0.0
            own[place] += _OF_REQUEST * (hit - own[place])
            overall[place] += _OF_ALL * (hit - overall[place])

    def see_step(self, *, num_rows: int, num_drafts: int, num_proposals: int, seconds: float) -> None:
        self.elapsed += seconds
        if num_drafts == num_proposals and num_drafts in self.widths:
            self.times.record(num_rows, num_drafts, seconds)
