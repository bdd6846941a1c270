"""Compares drafters on one trajectory: the output cannot depend on the drafter, so all candidates get the same tokens.

A candidate is a `speculative_config`, k included. Every difference has an interval from the paired jackknife by
prompt; all intervals of a report hold together with probability CONFIDENCE (Bonferroni). Runs no model.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outrider.gate import statistics
from outrider.gate.errors import GateError
from outrider.gate.quantiles import t_tail
from outrider.gate.sample import Measurement, Sample
from outrider.gate.statistics import Ratio

CONFIDENCE = 0.95
OUTPUT_PARTS = (16, 64, 256)
"""Boundaries of the output positions by which tokens are grouped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The measurement of one drafter at one k."""

    name: str
    num_drafts: int
    cost_ratio: float
    """Cost of one draft token relative to one target step."""
    measurement: Measurement

    @property
    def tokens_per_step(self) -> float:
        stats = self.measurement.stats
        return sum(sample.num_tokens for sample in self.measurement.samples) / stats.num_steps

    @property
    def speed(self) -> float:
        """Tokens per cost of one target step: tokens / (steps + cost ratio × drafted tokens)."""
        return _speed(self, self.measurement.samples).value


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One quantity of b minus that of a, paired by prompt."""

    where: str
    a: float
    b: float
    margin: float
    p_value: float
    """Two-sided p-value of this contrast alone."""

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def better(self) -> str:
        """ "a", "b", or "" if the interval contains zero."""
        if abs(self.difference) <= self.margin:
            return ""
        return "b" if self.difference > 0 else "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Comparison of b with a on the same tokens."""

    a: Candidate
    b: Candidate
    speed: Contrast
    categories: tuple[Contrast, ...]
    """Tokens per step by category."""
    positions: tuple[Contrast, ...]
    """Acceptance rate by draft position, up to the smaller k."""
    places: tuple[Contrast, ...]
    """Share of output tokens that were accepted drafts, by position in the output."""
    drafted: Counter[tuple[bool, bool]]
    """Numbers of output tokens by (accepted draft of a, accepted draft of b)."""


def check_same_trajectory(candidates: Sequence[Candidate]) -> None:
    """Raises GateError if two candidates gave different tokens or logits: the engine is then not exact."""
    first = candidates[0]
    for other in candidates[1:]:
        for ours, theirs in zip(first.measurement.samples, other.measurement.samples, strict=True):
            if (ours.token_ids, ours.logits_digest) != (theirs.token_ids, theirs.logits_digest):
                raise GateError(
                    f"prompt {ours.prompt}: {first.name} and {other.name} gave different tokens or logits. The engine "
                    "is not exact here, and acceptance cannot be compared. Run the identity tests."
                )


def compare(a: Candidate, b: Candidate, *, num_comparisons: int = 1) -> Comparison:
    """Compares b with a. Several comparisons in one report share the error probability."""
    check_same_trajectory([a, b])
    pair = (a.measurement.samples, b.measurement.samples)
    categories = list(dict.fromkeys(sample.category for sample in pair[0]))
    num_positions = min(a.num_drafts, b.num_drafts)
    longest = max(sample.num_tokens for sample in pair[0])
    places = [0, *(part for part in OUTPUT_PARTS if part < longest), longest]
    bounds = list(itertools.pairwise(places))
    total = (1 + len(categories) + num_positions + len(bounds)) * num_comparisons
    tail = (1.0 - CONFIDENCE) / total / 2.0

    def contrast(where: str, left: Ratio, right: Ratio) -> Contrast:
        found = statistics.difference(right, left)
        return Contrast(where=where, a=left.value, b=right.value, margin=found.margin(tail), p_value=_p_value(found))

    return Comparison(
        a=a,
        b=b,
        speed=contrast("all", _speed(a, pair[0]), _speed(b, pair[1])),
        categories=tuple(
            contrast(name, *(_tokens_per_step([s for s in samples if s.category == name]) for samples in pair))
            for name in categories
        ),
        positions=tuple(
            contrast(f"draft {position + 1}", *(statistics.ratios(samples)[position] for samples in pair))
            for position in range(num_positions)
        ),
        places=tuple(
            contrast(f"tokens {low} to {high - 1}", *(_drafted(samples, low, high) for samples in pair))
            for low, high in bounds
        ),
        drafted=Counter(
            flags
            for ours, theirs in zip(*pair, strict=True)
            for flags in zip(ours.is_draft, theirs.is_draft, strict=True)
        ),
    )


def best_by_speed(candidates: Sequence[Candidate]) -> Candidate:
    """Returns the candidate with the most tokens per cost; the smallest k among equals."""
    return max(candidates, key=lambda candidate: (candidate.speed, -candidate.num_drafts))


def _p_value(found: statistics.Estimate) -> float:
    if not found.standard_error:
        return 1.0 if not found.value else 0.0
    if found.df <= 0.0:
        return 1.0
    return 2.0 * t_tail(abs(found.value) / found.standard_error, found.df)


def _by_prompt(
    name: str, samples: Sequence[Sample], numerators: Sequence[float], denominators: Sequence[float]
) -> Ratio:
    index: dict[str, int] = {}
    for sample in samples:
        index.setdefault(sample.prompt, len(index))
    rows = [index[sample.prompt] for sample in samples]
    sums = np.zeros((2, len(index)))
    np.add.at(sums[0], rows, np.asarray(numerators, dtype=np.float64))
    np.add.at(sums[1], rows, np.asarray(denominators, dtype=np.float64))
    return Ratio(name=name, numerators=sums[0], denominators=sums[1])


def _tokens_per_step(samples: Sequence[Sample]) -> Ratio:
    return _by_prompt(
        "tokens per step", samples, [s.num_tokens for s in samples], [float(s.num_steps) for s in samples]
    )


def _speed(candidate: Candidate, samples: Sequence[Sample]) -> Ratio:
    """Number of drafted tokens: every step pays for k drafts, except the first step of a request."""
    cost = [sample.num_steps + candidate.cost_ratio * candidate.num_drafts * sample.num_drafts for sample in samples]
    return _by_prompt("tokens per cost", samples, [s.num_tokens for s in samples], cost)


def _drafted(samples: Sequence[Sample], low: int, high: int) -> Ratio:
    """Share of accepted drafts among the output tokens [low, high)."""
    flags = [sample.is_draft[low:high] for sample in samples]
    return _by_prompt("drafted", samples, [sum(part) for part in flags], [len(part) for part in flags])
