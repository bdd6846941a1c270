"""Comparing drafters on one trajectory: paired, with certainty, and by cost."""

from dataclasses import replace

import numpy as np
import pytest

from outrider.gate.compare import Candidate, best_by_speed, check_same_trajectory, compare
from outrider.gate.compare_report import verdict
from outrider.gate.errors import GateError

from .samples_made_here import measurement, sample


def cut(num_tokens: int, rate: float, rng: np.random.Generator, *, k: int) -> tuple[int, ...]:
    """Steps of a drafter that is right with probability `rate`, for exactly `num_tokens` tokens."""
    steps, left = [0], num_tokens - 1
    while left:
        accepted = 0
        while accepted < k and accepted < left - 1 and rng.random() < rate:
            accepted += 1
        steps.append(accepted)
        left -= accepted + 1
    return tuple(steps)


def candidate(name, rate, *, k=3, cost_ratio=0.0, seed=0, num_prompts=30, wobble=0.0):
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(num_prompts):
        own = min(max(rate + wobble * rng.normal(), 0.0), 1.0)
        steps = cut(40, own, rng, k=k)
        made = sample(str(index), steps=steps, k=k, token_ids=tuple(range(40)))
        samples.append(replace(made, category=("code", "math")[index % 2]))
    return Candidate(name=name, num_drafts=k, cost_ratio=cost_ratio, measurement=measurement(samples, k=k))


def test_the_better_drafter_is_named_with_certainty():
    found = compare(candidate("A", 0.4), candidate("B", 0.8, seed=1))
    assert found.speed.better == "b" and found.speed.p_value < 1e-6
    assert found.speed.difference == pytest.approx(found.b.tokens_per_step - found.a.tokens_per_step)
    assert [contrast.where for contrast in found.categories] == ["code", "math"]
    assert [contrast.where for contrast in found.places] == ["tokens 0 to 15", "tokens 16 to 39"]
    assert all(contrast.better == "b" for contrast in (*found.categories, *found.positions, *found.places))
    assert "B is better" in verdict(found)
    swapped = compare(found.b, found.a)
    assert swapped.speed.difference == pytest.approx(-found.speed.difference) and swapped.speed.better == "a"


def test_tokens_are_counted_pair_by_pair():
    a = candidate("A", 0.5)
    found = compare(a, candidate("B", 0.5, seed=9))
    assert found.drafted.total() == 30 * 40
    drafted_by_a = sum(sum(entry.is_draft) for entry in a.measurement.samples)
    assert found.drafted[True, True] + found.drafted[True, False] == drafted_by_a
    same = compare(a, replace(a, name="again"))
    assert same.drafted[True, False] == same.drafted[False, True] == 0
    assert same.speed.better == "" and same.speed.p_value == 1.0 and "no difference shown" in verdict(same)


def test_equal_drafters_are_called_different_rarely():
    """60 comparisons of drafters that are equally good, eight intervals each, all true together in 95 of 100."""
    wrong = 0
    for seed in range(60):
        found = compare(
            candidate("A", 0.6, seed=2 * seed, num_prompts=12, wobble=0.1),
            candidate("B", 0.6, seed=2 * seed + 1, num_prompts=12, wobble=0.1),
        )
        contrasts = (found.speed, *found.categories, *found.positions, *found.places)
        assert len(contrasts) == 8
        wrong += any(contrast.better for contrast in contrasts)
    assert wrong <= 60 * 0.05 + 3 * (60 * 0.05 * 0.95) ** 0.5


def test_the_best_k_depends_on_the_cost_of_a_draft():
    def best(cost_ratio):
        ladder = [candidate(f"k={k}", 0.7, k=k, cost_ratio=cost_ratio, seed=3) for k in (1, 2, 3, 5, 8)]
        return best_by_speed(ladder).num_drafts

    found = [best(cost_ratio) for cost_ratio in (0.0, 0.05, 0.2, 0.6)]
    assert found == sorted(found, reverse=True) and found[0] == 8 and found[-1] == 1


def test_speed_is_tokens_over_cost():
    found = candidate("A", 0.5, k=3, cost_ratio=0.1)
    stats = found.measurement.stats
    assert found.speed == pytest.approx(1200 / (stats.num_steps + 0.1 * 3 * stats.num_drafts))
    assert replace(found, cost_ratio=0.0).speed == pytest.approx(found.tokens_per_step)


def test_positions_are_compared_as_far_as_both_draft():
    assert len(compare(candidate("A", 0.5, k=2), candidate("B", 0.5, k=5, seed=1)).positions) == 2


def test_different_outputs_cannot_be_compared():
    a, b = candidate("A", 0.5), candidate("B", 0.5, seed=1)
    samples = list(b.measurement.samples)
    samples[4] = replace(samples[4], logits_digest="00000000000000ff")
    other = replace(b, measurement=measurement(samples))
    check_same_trajectory([a, b])
    with pytest.raises(GateError, match="prompt 4: A and B gave different tokens or logits"):
        compare(a, other)
