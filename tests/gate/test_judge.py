"""The verdict: what moved and where on one platform, and bounds elsewhere."""

from dataclasses import replace

import pytest

from outrider.gate.errors import GateError
from outrider.gate.judge import Moved, Test, judge
from outrider.gate.statistics import LENGTH

from .samples_made_here import measurement, sample

STEPS = [(0, 3, 1, 2), (0, 0, 3, 3, 1), (0, 2, 2), (0, 1, 3, 0, 2)]
BASELINE = [sample(str(index), steps=steps) for index, steps in enumerate(STEPS * 5)]
BASELINE = [replace(entry, prompt=str(index)) for index, entry in enumerate(BASELINE)]


def verdict(now, *, is_exact, tolerance=0.02):
    return judge(measurement(now), BASELINE, is_exact=is_exact, tolerance=tolerance, alarm_level=0.01)


def changed(index, **changes):
    now = list(BASELINE)
    now[index] = replace(now[index], **changes)
    return now


def test_equal_runs_pass_both_ways():
    assert verdict(BASELINE, is_exact=True).passed and verdict(BASELINE, is_exact=False).passed
    assert verdict(BASELINE, is_exact=True).differences == ()


def test_other_tokens_mean_the_target_changed():
    token_ids = list(BASELINE[3].token_ids)
    token_ids[5] = 7
    found = verdict(changed(3, token_ids=tuple(token_ids), logits_digest="x"), is_exact=True)
    assert not found.passed
    (difference,) = found.differences
    assert (difference.moved, difference.prompt, difference.token) == (Moved.TEXT, "3", 5)
    assert "token id 105 became 7" in difference.detail
    assert "the target changed" in found.cause and "prompt 3, turn 1, output token 5" in found.cause


def test_a_longer_text_differs_behind_the_shorter():
    (difference,) = verdict(changed(0, token_ids=(*BASELINE[0].token_ids, 9)), is_exact=True).differences
    assert difference.token == len(BASELINE[0].token_ids) and "the end became 9" in difference.detail


def test_same_tokens_from_other_logits_mean_the_arithmetic_changed():
    found = verdict(changed(2, logits_digest="00000000000000bb"), is_exact=True)
    assert [entry.moved for entry in found.differences] == [Moved.LOGITS]
    assert "arithmetic changed" in found.cause


def test_other_acceptance_of_the_same_text_means_the_drafter_changed():
    worse = sample("0", steps=(0, 3, 0, 0, 2), token_ids=BASELINE[0].token_ids)
    found = verdict([worse, *BASELINE[1:]], is_exact=True)
    (difference,) = found.differences
    assert difference.moved is Moved.ACCEPTANCE
    assert difference.token == 5  # 0 | d d d 4 | 5: a draft before, the target's own now
    assert "step 2 accepted 0 drafts, it was 1" in difference.detail
    assert "only the drafter changed" in found.cause


def test_a_count_without_a_trace_is_still_compared():
    found = verdict(changed(1, num_draft_tokens=11), is_exact=True)
    assert found.differences[0].detail == "num_draft_tokens 12 became 11" and not found.passed


def test_an_improvement_of_the_drafter_is_a_difference_on_the_same_platform():
    better = sample("2", steps=(0, 3, 1), token_ids=BASELINE[2].token_ids)
    assert not verdict([*BASELINE[:2], better, *BASELINE[3:]], is_exact=True).passed


def worse_everywhere():
    return [replace(sample(entry.prompt, steps=(0, 1, 0, 1, 0)), seed=entry.seed) for entry in BASELINE]


def better_everywhere():
    return [sample(entry.prompt, steps=(0, 3, 3, 3)) for entry in BASELINE]


def test_a_fall_fails_below_its_bound_and_is_named():
    found = verdict(worse_everywhere(), is_exact=False)
    assert not found.passed and "draft 1 accepted" in found.cause and "is below its bound" in found.cause


def test_an_improvement_fails_no_position_and_only_the_two_sided_total():
    found = verdict(better_everywhere(), is_exact=False)
    assert [test.name for test in found.tests if not test.passed] == [LENGTH]
    assert "record it again" in found.cause


def test_a_fall_within_the_tolerance_passes_and_beyond_it_fails():
    """No noise at all: only the tolerance keeps the fall from an alarm."""
    steps = (0, *[3] * 19, 2)
    baseline = [sample(str(index), steps=(0, *[3] * 20)) for index in range(10)]
    now = measurement([sample(str(index), steps=steps) for index in range(10)])

    def passed(tolerance):
        return judge(now, baseline, is_exact=False, tolerance=tolerance, alarm_level=0.01).passed

    assert passed(0.06) and not passed(0.04)  # the third position fell from 1 to 0.95


def test_noise_and_tolerance_are_both_needed():
    test = Test(name="x", baseline=0.5, now=0.45, margin=0.1, tolerance=0.01, is_two_sided=False, detectable_fall=0.2)
    assert test.passed and test.lower_bound == pytest.approx(0.4) and test.upper_bound is None
    assert replace(test, margin=0.01, tolerance=0.1).passed
    assert not replace(test, margin=0.04).passed
    assert replace(test, now=0.9).passed and not replace(test, now=0.9, is_two_sided=True).passed


def test_a_drafter_that_stops_drafting_is_caught_though_its_rates_are_perfect():
    now = [
        replace(entry, num_drafts=1, num_draft_tokens=3, num_accepted_tokens=3, num_accepted_tokens_per_pos=(1, 1, 1))
        for entry in BASELINE
    ]
    found = verdict(now, is_exact=False)
    failed = [test.name for test in found.tests if not test.passed]
    assert "steps with drafts" in failed


def test_other_prompts_seeds_or_turns_are_refused():
    for changes, words in (
        ({"prompt_digest": "other"}, "other token ids"),
        ({"seed": 8}, "seed 8 here"),
        ({"prompt": "z"}, "or other ids"),
    ):
        with pytest.raises(GateError, match=words):
            verdict(changed(0, **changes), is_exact=True)
    with pytest.raises(GateError, match="19 requests here, 20 there"):
        verdict(BASELINE[1:], is_exact=False)


def test_seven_prompts_are_too_few_for_bounds_and_enough_for_integers():
    few = BASELINE[:7]
    with pytest.raises(GateError, match=r"has 7 prompts; at an alarm level of 1\.0% fewer than 8 cannot show a fall"):
        judge(measurement(few), few, is_exact=False, tolerance=0.0, alarm_level=0.01)
    assert judge(measurement(few), few, is_exact=True, tolerance=0.0, alarm_level=0.01).passed


def test_a_later_turn_may_have_another_prompt_because_an_answer_differs():
    baseline = [*BASELINE, sample("0", turn=2)]
    now = [*BASELINE, sample("0", turn=2, prompt_digest="follows another answer")]
    found = judge(measurement(now), baseline, is_exact=True, tolerance=0.0, alarm_level=0.01)
    assert [(entry.turn, entry.moved, entry.token) for entry in found.differences] == [(2, Moved.TEXT, None)]
