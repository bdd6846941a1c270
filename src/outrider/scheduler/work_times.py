"""Time of a step by the work in it, learned while serving.

For devices whose steps were not measured beforehand and that take longer with every token, as a CPU:

    seconds = launch + rows · a + tokens · b + reads · c + logits · d          a, b, c, d >= 0

The coefficients fit the latest times of steps of each size. Work that is much more than was ever seen is not trusted to
the formula: it at most doubles from step to step. Knows seconds and counts; no requests, no device.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, sqrt

from outrider.core.plan import RowPlan

_TILE = 16
"""Tokens of a row that attention on a CPU takes at once."""
_FIRST_TOKENS, _FIRST_READS = 64, 1 << 10
"""Work that is tried though no step has had as much."""
_MAX_SIZES = 32
"""Number of sizes of steps that are remembered: those seen last."""
_NUM_SWEEPS = 8
_UNITS = (1.0, 16.0, 64.0, 2048.0, 64.0)
"""Amounts of each kind of work that take times of the same order: the numbers stay within a few decades."""


@dataclass(slots=True)
class Work:
    """Counts of what a step computes, with which its time grows."""

    rows: int = 0
    tokens: int = 0
    reads: int = 0
    """Keys that tokens may read, added up. Up to `_TILE` tokens of a row read them at once."""
    logits: int = 0
    """Rows of logits: of samples, and of prompt tokens that are scored."""

    def add(self, row: RowPlan, sign: int = 1) -> None:
        """Add a row; `sign` -1 takes it away."""
        self.rows += sign
        self.tokens += sign * row.num_tokens
        self.reads += sign * -(-row.num_tokens // _TILE) * row.length_bound
        self.logits += sign * (row.num_samples + row.num_scored)

    @staticmethod
    def of(rows: Iterable[RowPlan]) -> "Work":
        """The work of `rows`."""
        work = Work()
        for row in rows:
            work.add(row)
        return work

    @property
    def amounts(self) -> tuple[float, ...]:
        """One (for the launch) and the counts, in `_UNITS`."""
        counts = (1, self.rows, self.tokens, self.reads, self.logits)
        return tuple([count / unit for count, unit in zip(counts, _UNITS, strict=True)])

    @property
    def size(self) -> tuple[int, ...]:
        """Equal for works of about the same size."""
        return self.rows.bit_length(), self.tokens.bit_length(), self.reads.bit_length(), self.logits.bit_length()


@dataclass(slots=True)
class _Seen:
    """The latest steps of one size."""

    work: Work
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=3))

    @property
    def typical(self) -> float:
        """The median, or the smaller of two: a pause of the machine does not belong to the step."""
        return sorted(self.seconds)[(len(self.seconds) - 1) // 2]


class WorkTimes:
    """Seconds of a step by its work."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[int, ...], _Seen] = OrderedDict()
        self._costs = [0.0] * len(_UNITS)
        self._is_fitted = True

    def observe(self, work: Work, seconds: float) -> None:
        """Record a step."""
        seen = self._seen.pop(work.size, None) or _Seen(work)
        seen.work = work
        seen.seconds.append(seconds)
        self._seen[work.size] = seen
        if len(self._seen) > _MAX_SIZES:
            self._seen.popitem(last=False)
        self._is_fitted = False

    def seconds(self, work: Work) -> float:
        """The expected time of a step."""
        self._fit()
        return sum(cost * amount for cost, amount in zip(self._costs, work.amounts, strict=True))

    def most_tokens(self, work: Work, limit: float, *, context: int, is_scored: bool) -> int:
        """Tokens of one more row, behind `context` tokens, with which a step of `work` ends within `limit`.
        `is_scored`: each has a row of logits."""
        begun = context // 2  # on average, of a tile that is not full
        more = Work(rows=work.rows + 1, tokens=work.tokens, reads=work.reads + begun, logits=work.logits + 1)
        room = limit - self.seconds(more)
        if room <= 0:
            return 0
        _, _, token, read, logit = (cost / unit for cost, unit in zip(self._costs, _UNITS, strict=True))
        read /= _TILE
        linear = token + read * context + (logit if is_scored else 0.0)
        timely = _root(read, linear, room)
        seen = [entry.work for entry in self._seen.values()]
        tokens = 2 * max((entry.tokens for entry in seen), default=0)
        reads = 2 * max((entry.reads for entry in seen), default=0)
        reads_left = max(reads, _FIRST_READS) - more.reads
        known = min(max(tokens, _FIRST_TOKENS) - work.tokens, _root(1.0, context, max(reads_left * _TILE, 0)))
        return max(int(min(timely, known)), 0)

    def _fit(self) -> None:
        """Least squares of relative errors, none of the costs below 0, by a few sweeps from the costs before: each cost
        in turn takes the best value beside the others. An error of one is the most for a step that was far too slow."""
        if self._is_fitted:
            return
        self._is_fitted = True
        places = range(len(_UNITS))
        shares = [[amount / seen.typical for amount in seen.work.amounts] for seen in self._seen.values()]
        products = [[sum(row[i] * row[j] for row in shares) for j in places] for i in places]
        sums = [sum(row[i] for row in shares) for i in places]
        for _ in range(_NUM_SWEEPS):
            for i in places:
                others = sum(products[i][j] * self._costs[j] for j in places if j != i)
                if products[i][i] > 0:
                    self._costs[i] = max(0.0, (sums[i] - others) / products[i][i])


def _root(square: float, linear: float, most: float) -> float:
    """The largest x >= 0 with square · x² + linear · x <= most."""
    if square <= 0.0:
        return most / linear if linear > 0.0 else inf
    return (sqrt(linear * linear + 4.0 * square * most) - linear) / (2.0 * square)
