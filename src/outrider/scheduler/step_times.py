"""Time of a step of pure decoding, by its rows and drafts: measured before serving, corrected while serving.

    seconds(rows, drafts) = known(rows, drafts) · scale(rows) + shared(rows) + own(rows, drafts)

`known` was measured before serving, or is the first such step seen; until then a rough formula scales the nearest known
time. `scale` is the first step seen with these rows over the known time: real rows have contexts to read, and real
numbers take more power. `shared` is the time by which all steps with these rows get longer as contexts grow, and `own`
the extra time of one number of drafts. Learns from steady steps (as many drafts verified as made). Knows seconds only;
not what a draft is worth.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

_TOKENS_PER_PASS = 150.0
"""In the formula: tokens that make a step twice as long as reading the weights alone."""
_DRAFT_PASS = 0.05
"""In the formula: time of drafting one token, as a share of reading the target's weights."""

_SMOOTHING = 0.1
"""Weight of a new measurement."""
_MOST_ABOVE = 1.5
"""A measurement is limited to this multiple of the expected time, in a bucket that is not new."""
_DOUBT = 0.25
"""Share by which a step that was measured before serving may be shorter while serving, apart from `shared`."""
_LEAST = 0.2
"""Minimum estimate, as a share of the known time."""


class StepTimes:
    """Seconds of a step with each of `widths` drafts, by buckets of rows."""

    def __init__(
        self,
        widths: Sequence[int],
        row_buckets: Sequence[int],
        known: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        """`row_buckets`: ascending; steps of a bucket take the same time. After the last come its doubles.
        `known`: seconds by (bucket, width), if they were measured."""
        self._widths = tuple(widths)
        self._buckets = tuple(row_buckets)
        self._known = dict(known or {})
        self._guesses: dict[tuple[int, int], float] = {}  # of times that are not known; cleared when one becomes known
        self._scale: dict[int, float] = {}
        self._shared: dict[int, float] = {}
        self._own: dict[tuple[int, int], float] = {}
        self._visits: dict[int | tuple[int, int], int] = {}  # number of steps seen, by bucket and by (bucket, width)
        self._latest: dict[tuple[int, int], list[float]] = {}

    def bucket(self, num_rows: int) -> int:
        """The largest number of rows with which a step takes as long as with `num_rows`."""
        place = bisect_left(self._buckets, num_rows)
        if place < len(self._buckets):
            return self._buckets[place]
        return self._buckets[-1] * 2 ** math.ceil(math.log2(num_rows / self._buckets[-1]))

    @property
    def has_measurement(self) -> bool:
        """False while `seconds` gives relative times only."""
        return bool(self._known)

    def doubt(self, num_rows: int, num_drafts: int) -> float:
        """Share by which the estimate may be too long: 0 if such steps were seen."""
        key = (self.bucket(num_rows), num_drafts)
        if self._visits.get(key):
            return 0.0
        return _DOUBT if key in self._known else math.inf

    def record(self, num_rows: int, num_drafts: int, seconds: float) -> None:
        """Record one steady step. The estimate uses the median of the last three, or the smaller of the first two: the
        first step may have captured or compiled something, and a pause of the machine does not belong to the step."""
        bucket = self.bucket(num_rows)
        key = (bucket, num_drafts)
        latest = [*self._latest.get(key, ()), seconds][-3:]
        self._latest[key] = latest
        if len(latest) == 1:
            return
        seconds = sorted(latest)[(len(latest) - 1) // 2]
        if key not in self._known:
            self._known[key] = (seconds - self._shared.get(bucket, 0.0)) / self._scale.get(bucket, 1.0)
            self._guesses.clear()
        if bucket not in self._scale:
            self._scale[bucket] = seconds / self._known[key]
        expected = self._expect(key)
        if bucket in self._visits:
            seconds = min(seconds, _MOST_ABOVE * expected)
        error = seconds - expected
        common = max(_SMOOTHING, 1 / (1 + self._visits.get(bucket, 0)))
        alone = (1 - common) / (1 + self._visits.get(key, 0))
        self._shared[bucket] = self._shared.get(bucket, 0.0) + common * error
        self._own[key] = self._own.get(key, 0.0) + alone * error
        for visited in (bucket, key):
            self._visits[visited] = self._visits.get(visited, 0) + 1

    def seconds(self, num_rows: int) -> list[float]:
        """Seconds of a step of `num_rows` rows, for each of the widths; relative times before anything was measured."""
        bucket = self.bucket(num_rows)
        return [self._expect((bucket, width)) for width in self._widths]

    def _expect(self, key: tuple[int, int]) -> float:
        known = (self._known.get(key) or self._guess(key)) * self._scale.get(key[0], 1.0)
        return max(known + self._shared.get(key[0], 0.0) + self._own.get(key, 0.0), _LEAST * known)

    def _guess(self, key: tuple[int, int]) -> float:
        if key not in self._guesses:
            scale = 1.0
            if self._known:
                nearest = min(self._known, key=lambda other: _distance(key, other))
                scale = self._known[nearest] / _shape(nearest)
            self._guesses[key] = scale * _shape(key)
        return self._guesses[key]


def _distance(key: tuple[int, int], other: tuple[int, int]) -> float:
    return abs(math.log2(key[0] / other[0])) + 0.5 * abs(key[1] - other[1])


def _shape(key: tuple[int, int]) -> float:
    num_rows, num_drafts = key
    return 1.0 + num_rows * (1 + num_drafts) / _TOKENS_PER_PASS + num_drafts * _DRAFT_PASS
