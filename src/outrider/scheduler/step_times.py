"""How long a step of pure decoding takes, by its rows and drafts: measured where it was seen, interpolated elsewhere.

Learns from steady steps (as many drafts verified as made). Knows seconds only; not what a draft is worth.

    seconds(rows, drafts) = shape(rows, drafts) · correction(rows, drafts)

`shape` grows linearly in rows of the batch and passes of the drafter. `correction` is what was measured over the shape;
where nothing was, it is the mean of the others', nearer ones counting more.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

_TOKENS_PER_PASS = 150.0
"""Tokens that make a step twice as long as reading the weights alone."""
_DRAFT_PASS = 0.05
"""Time of drafting one token, as a share of reading the target's weights."""

_SMOOTHING = 0.15
"""Weight of a new measurement."""
_FEW = 3
"""Of so many first measurements the least counts: a step that captured or compiled something came among them."""
_MOST_ABOVE = 1.5
"""A measurement is cut at this many times what was expected: a pause of the machine is no property of the step."""


class StepTimes:
    """Seconds of a step with `widths` drafts, by buckets of rows."""

    def __init__(self, widths: Sequence[int], row_buckets: Sequence[int]) -> None:
        """`row_buckets`: ascending; steps of a bucket take the same time. Behind the last come its doubles."""
        self._widths = tuple(widths)
        self._buckets = tuple(row_buckets)
        self._measured: dict[tuple[int, int], float] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._expected: dict[tuple[int, int], float] = {}

    def bucket(self, num_rows: int) -> int:
        """Rows up to which a step takes as long as with `num_rows`."""
        place = bisect_left(self._buckets, num_rows)
        if place < len(self._buckets):
            return self._buckets[place]
        return self._buckets[-1] * 2 ** math.ceil(math.log2(num_rows / self._buckets[-1]))

    @property
    def has_measurement(self) -> bool:
        """False while `seconds` gives relative times only."""
        return bool(self._measured)

    def record(self, num_rows: int, num_drafts: int, seconds: float) -> None:
        """Take in one steady step."""
        key = (self.bucket(num_rows), num_drafts)
        count = self._counts.get(key, 0)
        known = self._measured.get(key)
        if self._measured:
            seconds = min(seconds, _MOST_ABOVE * (known or self._expect(key)))
        if known is not None:
            seconds = min(known, seconds) if count < _FEW else known + _SMOOTHING * (seconds - known)
        self._measured[key] = seconds
        self._counts[key] = count + 1
        self._expected.clear()

    def seconds(self, num_rows: int) -> list[float]:
        """Of a step of `num_rows` rows, for each of the widths; relative ones before anything was measured."""
        bucket = self.bucket(num_rows)
        return [self._measured.get((bucket, width)) or self._expect((bucket, width)) for width in self._widths]

    def _expect(self, key: tuple[int, int]) -> float:
        if key not in self._expected:
            self._expected[key] = _shape(key) * self._correction(key)
        return self._expected[key]

    def _correction(self, key: tuple[int, int]) -> float:
        total = weights = 0.0
        for other, seconds in self._measured.items():
            distance = abs(math.log2(key[0] / other[0])) + 0.5 * abs(key[1] - other[1])
            weight = 1.0 / (0.1 + distance) ** 3
            total += weight * math.log(seconds / _shape(other))
            weights += weight
        return math.exp(total / weights) if weights else 1.0


def _shape(key: tuple[int, int]) -> float:
    num_rows, num_drafts = key
    return 1.0 + num_rows * (1 + num_drafts) / _TOKENS_PER_PASS + num_drafts * _DRAFT_PASS
