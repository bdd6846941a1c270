"""Rates with intervals clustered by prompt, and the test whether a rate has fallen. Works on numbers only.

Steps of one prompt are alike, so the prompt is the unit: a rate is a ratio of sums over prompts, and its standard error
comes from the jackknife that leaves out one prompt at a time. Two runs are compared as pairs, prompt by prompt, which
is valid whether the pairs have everything in common or nothing.

A family of tests gets one critical value from swaps: if nothing changed, baseline and run of a prompt are
exchangeable, so exchanging them at random gives the distribution of the largest studentised difference, with all
correlation between tests and any shape of the counts. The level holds for any number of prompts (Westfall and Young
1993 on the maximum; Lehmann and Romano 2005, 15.2 on exactness).

Intervals for plots and comparisons use Student's t with the *effective* number of prompts, (Σw)² / Σw² of the steps w
that each brings: a few long prompts among many short ones count as few (in the spirit of Carter, Schnepel and
Steigerwald 2017; MacKinnon, Nielsen and Webb 2023 on the jackknife with few clusters).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outrider.gate.quantiles import t_quantile
from outrider.gate.sample import Sample

Counts = NDArray[np.float64]
"""[num_prompts], a sum over the turns of each prompt."""

NUM_SWAPS = 2048
"""Maximum number of exchanges that are tried; all of them for up to 11 prompts."""

POWER = 0.8
"""Probability with which the smallest detectable fall is caught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """offset + Σ numerators / Σ denominators over prompts; `offset` alone where nothing was counted."""

    name: str
    numerators: Counts
    denominators: Counts
    offset: float = 0.0

    @property
    def value(self) -> float:
        return float(self.offset + _divided(self.numerators.sum(), self.denominators.sum()))

    @property
    def without_each(self) -> Counts:
        """The value with one prompt left out, for every prompt. [num_prompts]"""
        left = self.numerators.sum() - self.numerators, self.denominators.sum() - self.denominators
        return self.offset + _divided(*left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its error estimate."""

    value: float
    standard_error: float
    df: float
    """Degrees of freedom: effective number of prompts, less one."""

    def margin(self, tail: float) -> float:
        """Margin that noise alone exceeds on one side with probability `tail`."""
        if self.df <= 0.0:
            return float("inf")
        return t_quantile(tail, self.df) * self.standard_error if self.standard_error else 0.0


def _divided(numerator: Counts, denominator: Counts) -> Counts:
    """numerator / denominator; 0 where nothing was counted."""
    empty = denominator == 0
    result: Counts = np.where(empty, 0.0, numerator / np.where(empty, 1.0, denominator))
    return result


def estimate(ratio: Ratio) -> Estimate:
    """One rate with its interval."""
    return _estimate(ratio.value, _jackknife_error(ratio.without_each), weights=ratio.denominators)


def difference(now: Ratio, baseline: Ratio) -> Estimate:
    """now − baseline, paired by prompt: entry i of both is the same prompt."""
    error = _jackknife_error(now.without_each - baseline.without_each)
    return _estimate(now.value - baseline.value, error, weights=now.denominators + baseline.denominators)


def _jackknife_error(without_each: Counts) -> Counts:
    """Standard errors [...] from values with one prompt left out, [..., num_prompts]."""
    count = without_each.shape[-1]
    spread = without_each - without_each.mean(axis=-1, keepdims=True)
    error: Counts = np.sqrt((count - 1) / count * (spread * spread).sum(axis=-1))
    return error


def _estimate(value: float, error: Counts, *, weights: Counts) -> Estimate:
    if len(weights) < 2:
        return Estimate(value=value, standard_error=float("inf"), df=0.0)
    return Estimate(value=value, standard_error=float(error), df=max(effective_number(weights) - 1.0, 0.0))


def critical_value(pairs: Sequence[tuple[Ratio, Ratio]], two_sided: Sequence[bool], *, alarm_level: float) -> float:
    """Number of standard errors a difference must exceed so that all tests together alarm with at most `alarm_level`.

    `pairs`: (now, baseline) of each test, the same prompts in all; a one-sided test looks for a fall only.
    """
    swaps = arrangements(len(pairs[0][0].numerators))
    largest = np.zeros(len(swaps))
    for (now, baseline), is_two_sided in zip(pairs, two_sided, strict=True):
        numerators = _swapped(now.numerators, baseline.numerators, swaps)
        denominators = _swapped(now.denominators, baseline.denominators, swaps)
        values, lefts = [], []
        for numerator, denominator in zip(numerators, denominators, strict=True):
            total = numerator.sum(axis=1), denominator.sum(axis=1)
            values.append(_divided(*total))
            lefts.append(_divided(total[0][:, None] - numerator, total[1][:, None] - denominator))
        fall = values[1] - values[0]
        error = _jackknife_error(lefts[0] - lefts[1])
        studentised = _divided(np.abs(fall) if is_two_sided else fall, error)
        largest = np.maximum(largest, studentised)
    allowed = int(alarm_level * len(swaps))  # number of arrangements that may lie above
    return float(np.sort(largest)[len(swaps) - 1 - allowed]) * (1.0 + 1e-9)


def arrangements(num_prompts: int) -> NDArray[np.bool_]:
    """[num, num_prompts]: which prompts exchange baseline and run. All ways, or NUM_SWAPS of them for many prompts.

    The first is what was observed. The generator's seed is fixed, so that a check repeated gives the same verdict.
    """
    if 2**num_prompts <= NUM_SWAPS:
        return (np.arange(2**num_prompts)[:, None] >> np.arange(num_prompts) & 1).astype(bool)
    swaps = np.random.default_rng(0).random((NUM_SWAPS, num_prompts)) < 0.5
    swaps[0] = False
    return swaps


def _swapped(now: Counts, baseline: Counts, swaps: NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """(now, baseline), each [num_swaps, num_prompts], with the prompts that `swaps` marks exchanged."""
    return np.where(swaps, baseline, now), np.where(swaps, now, baseline)


def fewest_prompts(alarm_level: float) -> int:
    """Smallest number of prompts for which all of them falling is rarer than `alarm_level`, on both sides."""
    return 1 + math.ceil(math.log2(1.0 / alarm_level))


def effective_number(weights: Counts) -> float:
    """Effective number (Σw)² / Σw²: the count if all weights are equal, less if some weigh more."""
    squares = float((weights * weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def smallest_detectable_fall(estimated: Estimate, threshold: float) -> float:
    """The true fall that crosses `threshold` with probability POWER."""
    return threshold + estimated.margin(1.0 - POWER)


def ratios(samples: Sequence[Sample]) -> list[Ratio]:
    """The rates that are judged, prompts in order of first appearance.

    Per position (where known), the share of steps with drafts (where known), and the mean acceptance length, last.
    """
    index: dict[str, int] = {}
    for sample in samples:
        index.setdefault(sample.prompt, len(index))

    def sums(values: Sequence[int]) -> Counts:
        result = np.zeros(len(index))
        np.add.at(result, [index[sample.prompt] for sample in samples], np.asarray(values, dtype=np.float64))
        return result

    drafts = sums([sample.num_drafts for sample in samples])
    widths = {len(sample.num_accepted_tokens_per_pos) for sample in samples}
    assert len(widths) == 1, f"samples of one run have {sorted(widths)} positions"
    found = [
        Ratio(
            name=f"draft {position + 1} accepted",
            numerators=sums([sample.num_accepted_tokens_per_pos[position] for sample in samples]),
            denominators=drafts,
        )
        for position in range(*widths)
    ]
    if all(sample.num_steps for sample in samples):
        steps = sums([sample.num_steps for sample in samples])
        found.append(Ratio(name=DRAFTING, numerators=drafts, denominators=steps))
    accepted = sums([sample.num_accepted_tokens for sample in samples])
    found.append(Ratio(name=LENGTH, numerators=accepted, denominators=drafts, offset=1.0))
    return found


DRAFTING = "steps with drafts"
"""Catches a drafter that stops drafting, which acceptance over steps with drafts would not show."""
LENGTH = "mean acceptance length"
