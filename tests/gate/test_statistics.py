"""Intervals clustered by prompt: against a plain jackknife, and how often they alarm on drawn data."""

import numpy as np
import pytest
from scipy import stats

from outrider.gate import statistics
from outrider.gate.judge import compare_rates
from outrider.gate.statistics import DRAFTING, LENGTH, Estimate, Ratio

from .samples_made_here import drawn_ratios, sample


def ratio(numerators, denominators, offset=0.0):
    return Ratio(
        name="r", numerators=np.array(numerators, float), denominators=np.array(denominators, float), offset=offset
    )


def test_equal_weights_give_the_paired_t_test_of_scipy():
    """With equal denominators the ratio is a mean, and the jackknife its usual standard error."""
    rng = np.random.default_rng(1)
    ours, theirs, ones = rng.random(12), rng.random(12), np.ones(12)
    found = statistics.difference(ratio(ours, ones), ratio(theirs, ones))
    expected = stats.ttest_rel(ours, theirs)
    assert found.df == pytest.approx(expected.df)
    assert found.value / found.standard_error == pytest.approx(expected.statistic)
    low, high = expected.confidence_interval(0.99)
    assert found.margin(0.005) == pytest.approx((high - low) / 2)


def test_ratio_of_sums_is_not_the_mean_of_ratios():
    assert ratio([1, 8], [10, 10], offset=1.0).value == pytest.approx(1.45)
    assert ratio([1, 8], [2, 38]).value == pytest.approx(9 / 40)
    assert ratio([0, 0], [0, 0], offset=1.0).value == 1.0


def test_jackknife_leaves_out_one_prompt_at_a_time():
    numerators, denominators = np.array([3.0, 1.0, 7.0]), np.array([4.0, 5.0, 9.0])
    values = [np.delete(numerators, i).sum() / np.delete(denominators, i).sum() for i in range(3)]
    found = statistics.estimate(ratio(numerators, denominators))
    variance = 2 / 3 * sum((value - np.mean(values)) ** 2 for value in values)
    assert found.standard_error == pytest.approx(variance**0.5)


def test_few_long_prompts_count_as_few():
    assert statistics.effective_number(np.ones(40)) == pytest.approx(40)
    assert statistics.effective_number(np.array([1000.0, *[1.0] * 39])) == pytest.approx(1.08, abs=0.01)
    assert statistics.effective_number(np.zeros(3)) == 0.0


def test_one_prompt_says_nothing_about_noise():
    assert statistics.estimate(ratio([3], [4])).margin(0.01) == float("inf")
    assert Estimate(value=0.1, standard_error=0.0, df=0.0).margin(0.01) == float("inf")


def test_turns_of_a_prompt_are_one_cluster():
    samples = [sample("1"), sample("1", turn=2, steps=(0, 0, 0)), sample("2")]
    found = {entry.name: entry for entry in statistics.ratios(samples)}
    assert list(found) == ["draft 1 accepted", "draft 2 accepted", "draft 3 accepted", DRAFTING, LENGTH]
    assert found[LENGTH].denominators.tolist() == [5, 3] and found[LENGTH].numerators.tolist() == [6, 6]
    assert found[LENGTH].value == pytest.approx(1 + 12 / 8)
    assert found[DRAFTING].value == pytest.approx(8 / 11)


def alarms(num_prompts: int, *, runs: int, fall: float = 0.0) -> float:
    """Share of checks that fail; every check has its own baseline and its own run, all of them drawn anew."""
    rng, failed = np.random.default_rng(7), 0
    for _ in range(runs):
        baseline = drawn_ratios(num_prompts, rng)
        now = drawn_ratios(num_prompts, rng, mean=0.7 - fall)
        pairs = list(zip(now, baseline, strict=True))
        failed += not all(test.passed for test in compare_rates(pairs, tolerance=0.0, alarm_level=0.01))
    return failed / runs


@pytest.mark.parametrize("num_prompts", [3, 8, 40])
def test_nothing_changed_alarms_once_in_a_hundred_at_most(num_prompts):
    """Tolerance 0, so that only the interval stands between noise and an alarm. 300 checks: 1 % and three sigma."""
    assert alarms(num_prompts, runs=300) <= 0.01 + 3 * (0.01 * 0.99 / 300) ** 0.5


def test_an_interval_that_forgets_the_prompts_alarms_often(monkeypatch):
    """The reason for the clusters: with every step a unit of its own the same data alarm many times as often."""

    def by_step(now, baseline):
        total_now, total = now.denominators.sum(), baseline.denominators.sum()
        rate = (now.numerators.sum() + baseline.numerators.sum()) / (total_now + total)
        variance = max(rate * (1 - rate), 1e-9) * (1 / total_now + 1 / total)
        return Estimate(value=now.value - baseline.value, standard_error=variance**0.5, df=total_now + total)

    monkeypatch.setattr(statistics, "difference", by_step)
    assert alarms(40, runs=100) > 0.05


def test_a_real_fall_is_caught_and_a_larger_one_more_often():
    small, large = alarms(40, runs=40, fall=0.02), alarms(40, runs=40, fall=0.15)
    assert large > 0.7 and large > small + 0.3


def test_the_stated_detectable_fall_is_caught_in_four_of_five_checks():
    """The fall that a report names is the fall that is seen with probability 0.8."""
    rng = np.random.default_rng(5)
    caught, runs, ones = 0, 400, np.ones(30)
    for _ in range(runs):
        noise = rng.normal(0.0, 0.1, 30)
        first = statistics.difference(ratio(0.6 + noise, ones), ratio(0.6 * ones, ones))
        fall = statistics.smallest_detectable_fall(
            Estimate(value=0.0, standard_error=0.1 / 30**0.5, df=29), threshold := first.margin(0.0025)
        )
        caught += first.value - fall < -threshold
    assert caught / runs == pytest.approx(0.8, abs=0.06)
