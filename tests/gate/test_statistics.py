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
    """Share of checks that fail; every check has its own baseline and its own run, all of them newly drawn."""
    rng, failed = np.random.default_rng(7), 0
    for _ in range(runs):
        baseline = drawn_ratios(num_prompts, rng)
        now = drawn_ratios(num_prompts, rng, mean=0.7 - fall)
        pairs = list(zip(now, baseline, strict=True))
        failed += not all(test.passed for test in compare_rates(pairs, tolerance=0.0, alarm_level=0.01))
    return failed / runs


@pytest.mark.parametrize("num_prompts", [8, 20])
def test_nothing_changed_alarms_once_in_a_hundred_at_most(num_prompts):
    """Tolerance 0, so that only the interval keeps noise from an alarm. 150 checks: 1 % and three sigma."""
    assert alarms(num_prompts, runs=150) <= 0.01 + 3 * (0.01 * 0.99 / 150) ** 0.5


def test_the_level_holds_over_every_arrangement_of_some_counts():
    """Exact for few and uneven prompts: of all 2^9 exchanges of baseline and run, at most 1 % alarm."""
    rng = np.random.default_rng(3)
    steps = np.array([4.0, 5, 6, 7, 8, 20, 30, 60, 90])
    run, baseline = (np.floor(steps * rng.random((2, 9))) for _ in range(2))
    two_sided, found = [False, True], 0
    for bits in range(2**9):
        swap = np.array([bits >> place & 1 for place in range(9)], dtype=bool)
        pairs = [
            (ratio(np.where(swap, b, n), steps), ratio(np.where(swap, n, b), steps))
            for n, b in zip(run, baseline, strict=True)
        ]
        critical = statistics.critical_value(pairs, two_sided, alarm_level=0.01)
        tests = [statistics.difference(*pair) for pair in pairs]
        found += -tests[0].value > critical * tests[0].standard_error or (
            abs(tests[1].value) > critical * tests[1].standard_error
        )
    assert 0 < found <= 0.01 * 2**9


def test_fewest_prompts_of_which_all_can_fall_by_chance_once_in_a_hundred():
    assert statistics.fewest_prompts(0.01) == 8 and statistics.fewest_prompts(0.001) == 11

    def caught(count):
        fallen = ratio(np.full(count, 5.0) - 0.1 * np.arange(count), np.full(count, 10.0))
        pairs = [(fallen, ratio(np.full(count, 9.0), np.full(count, 10.0)))]
        (test,) = compare_rates(pairs, tolerance=0.0, alarm_level=0.01)
        return not test.passed

    assert caught(8) and not caught(5)


def test_one_critical_value_is_smaller_than_bonferronis_for_tests_that_move_together():
    rng = np.random.default_rng(4)
    now, baseline, ones = rng.random(40), rng.random(40), np.ones(40)
    same = [(ratio(now, ones), ratio(baseline, ones))] * 5
    one = statistics.critical_value(same[:1], [False], alarm_level=0.01)
    assert statistics.critical_value(same, [False] * 5, alarm_level=0.01) == one
    assert one == pytest.approx(stats.t.isf(0.01, 39), rel=0.15)
    apart = [(ratio(rng.random(40), ones), ratio(rng.random(40), ones)) for _ in range(5)]
    together = statistics.critical_value(apart, [False] * 5, alarm_level=0.01)
    assert together == pytest.approx(stats.t.isf(0.002, 39), rel=0.15)


def test_a_real_fall_is_caught_and_a_larger_one_more_often():
    small, large = alarms(40, runs=25, fall=0.02), alarms(40, runs=25, fall=0.2)
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
