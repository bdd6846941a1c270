"""The number of prompt tokens in a step: what the policy chooses, against a search over schedules, and its limit."""

import itertools
import random
from functools import cache

import pytest

from outrider.scheduler.prompt_budget import LONGEST_RATIO, LONGEST_WAIT, FixedBudget, MeasuredBudget

H200 = {
    64: 4.87, 128: 5.53, 256: 7.08, 384: 10.79, 512: 13.34, 640: 17.5, 768: 20.87, 1024: 22.0, 1280: 33.0, 2048: 44.0,
}  # fmt: skip
"""Milliseconds of steps of an 8B model by their tokens, as measured on an H200."""


def make(milliseconds: dict[int, float], most: int = 2048) -> MeasuredBudget:
    return MeasuredBudget({size: value / 1e3 for size, value in milliseconds.items()}, most=most)


def milliseconds(num_tokens: int) -> float:
    return H200[next(size for size in H200 if size >= num_tokens)]


@pytest.mark.parametrize(
    ("decode", "prompt", "chosen"),
    [
        (0, 1000, 1000),  # no decode rows: all at once
        (0, 3000, 2048),
        (4, 1000, 1000),
        (128, 272, 128),  # 256 tokens cost little more than 128
        (128, 2000, 896),
        (32, 16000, 992),  # 2048 tokens would take longer than the limit
        (40, 10, 10),
        (40, 544, 216),
        (1900, 500, 148),  # the largest size
    ],
)
def test_choices_for_an_8b_model(decode: int, prompt: int, chosen: int) -> None:
    assert make(H200).choose(num_decode_tokens=decode, num_prompt_tokens=prompt, has_queue=True) == chosen


def test_a_prompt_need_not_wait_for_a_little_time_if_no_request_waits_for_a_row() -> None:
    budget = make(H200)
    assert budget.choose(num_decode_tokens=40, num_prompt_tokens=544, has_queue=False) == 544
    assert budget.choose(num_decode_tokens=128, num_prompt_tokens=700, has_queue=False) == 700
    assert budget.choose(num_decode_tokens=128, num_prompt_tokens=960, has_queue=False) == 896, "the limit holds"


def spent(budget: MeasuredBudget, decode: int, prompt: int) -> tuple[float, int]:
    """Milliseconds by which the steps that compute a prompt are longer than those of the decode rows alone, and the
    number of these steps."""
    total, num_steps = 0.0, 0
    while prompt:
        count = budget.choose(num_decode_tokens=decode, num_prompt_tokens=prompt, has_queue=True)
        assert 0 < count <= prompt
        total += milliseconds(decode + count) - milliseconds(decode)
        prompt -= count
        num_steps += 1
    return total, num_steps


@pytest.mark.parametrize("decode", [64, 128, 256])
def test_prompts_cost_little_more_than_at_best(decode: int) -> None:
    """At best: over all sizes within the limit in no more steps; the decode rows fill a size, so none is free."""
    limit = max(LONGEST_WAIT * 1e3, LONGEST_RATIO * milliseconds(decode))
    sizes = [size for size in H200 if size > decode and H200[size] <= limit]

    @cache
    def best(prompt: int, num_steps: int) -> float:
        if prompt <= 0:
            return 0.0
        if num_steps == 0:
            return float("inf")
        return min(H200[size] - milliseconds(decode) + best(prompt - (size - decode), num_steps - 1) for size in sizes)

    rng = random.Random(decode)
    for _ in range(40):
        prompt = rng.randrange(1, 3000)
        cost, num_steps = spent(make(H200), decode, prompt)
        assert cost <= 1.2 * best(prompt, num_steps) + 2.0, (prompt, num_steps)


def test_a_step_with_decode_rows_stays_within_the_limit() -> None:
    rng = random.Random(3)
    for _ in range(300):
        sizes = sorted(rng.sample(range(16, 3000), rng.randrange(1, 9)))
        times = dict(zip(sizes, itertools.accumulate(rng.uniform(0.5, 25) for _ in sizes), strict=True))
        decode, prompt = rng.randrange(1, 600), rng.randrange(1, 5000)
        count = make(times, most=5000).choose(num_decode_tokens=decode, num_prompt_tokens=prompt, has_queue=True)
        if decode > sizes[-1]:
            assert count == 0
            continue
        base = next(times[size] for size in sizes if size >= decode)
        padded = next(times[size] for size in sizes if size >= decode + count)
        smallest = next((times[size] for size in sizes if size > decode), base)
        assert padded <= max(LONGEST_WAIT * 1e3, LONGEST_RATIO * base, smallest)
        assert count > 0 or decode == sizes[-1], "prompts go on"


def test_sizes_above_the_most_are_not_used() -> None:
    assert make(H200, most=512).choose(num_decode_tokens=0, num_prompt_tokens=3000, has_queue=True) == 512
    with pytest.raises(AssertionError, match="no measured size"):
        make(H200, most=10)


def test_a_fixed_budget_is_filled() -> None:
    assert FixedBudget(100).choose(num_decode_tokens=30, num_prompt_tokens=500, has_queue=True) == 70
