"""The adaptive number of drafts: what it believes, what it chooses, and what its trials may cost."""

import random
from itertools import pairwise

import pytest

from outrider.core.config import SpeculativeConfig
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.draft_policy import AdaptiveDrafts, FixedDrafts
from outrider.scheduler.step_times import StepTimes

WIDTHS = (0, 1, 3, 5)
BUCKETS = (1, 2, 4, 8, 16)


def make_request(*, most: int | None = None) -> Request:
    return Request(
        request_id="r", prompt_token_ids=[1], params=SamplingParams(num_speculative_tokens=most), seed=0,
        eos_token_ids=(), max_total_tokens=100,
    )  # fmt: skip


def make_policy() -> AdaptiveDrafts:
    return AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS)


def teach(policy: AdaptiveDrafts, num_rows: int, seconds: dict[int, float]) -> None:
    for width, took in seconds.items():
        for _ in range(100):
            policy.see_step(num_rows=num_rows, num_drafts=width, num_proposals=width, seconds=took)


def test_a_fixed_number_is_fixed() -> None:
    assert FixedDrafts(4).choose([]) == FixedDrafts(4).choose([make_request()]) == 4


@pytest.mark.parametrize(("k", "widths"), [(1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 2, 3)), (5, (0, 1, 3, 5))])
def test_allowed_numbers_are_few(k: int, widths: tuple[int, ...]) -> None:
    adaptive = SpeculativeConfig(method="ngram", num_speculative_tokens=k, adaptive=True)
    assert adaptive.draft_widths == widths
    assert SpeculativeConfig(method="ngram", num_speculative_tokens=k).draft_widths == (k,)


def test_estimates_approach_what_is_seen() -> None:
    policy, rng = make_policy(), random.Random(3)
    requests = [make_request() for _ in range(8)]
    chances = (0.8, 0.6, 0.3, 0.2, 0.1)
    policy.choose(requests)
    assert all(request.acceptance == policy.acceptance for request in requests)
    for _ in range(500):
        for request in requests:
            luck = rng.random()
            policy.see_row(request, num_drafts=5, num_accepted=sum(luck < chance for chance in chances))
    assert policy.acceptance == pytest.approx(chances, abs=0.1)
    means = [sum(column) / 8 for column in zip(*[request.acceptance for request in requests], strict=True)]
    assert means == pytest.approx(chances, abs=0.1)
    assert all(first >= second for first, second in pairwise(policy.acceptance))


def test_what_was_not_verified_teaches_nothing() -> None:
    policy = make_policy()
    request = make_request()
    policy.choose([request])
    before = list(request.acceptance)
    policy.see_row(request, num_drafts=2, num_accepted=0)
    assert request.acceptance[:2] < before[:2] and request.acceptance[2:] == before[2:]


def test_drafts_that_a_request_does_not_want_are_worth_nothing() -> None:
    policy = make_policy()
    requests = [make_request(most=1) for _ in range(3)]
    teach(policy, 3, {0: 1.0, 1: 1.01, 3: 1.02, 5: 1.03})
    policy.choose(requests)
    assert all(request.acceptance[1:] == [0.0] * 4 for request in requests)
    assert policy._width == 1


def test_the_choice_is_the_best_of_all() -> None:
    """Against a brute force over the allowed numbers, with measured times; nothing else is chosen but in trials."""
    rng = random.Random(11)
    seen = set()
    for _ in range(300):
        num_rows = rng.choice((1, 3, 8, 15))
        policy = make_policy()
        step, slope = rng.uniform(0.5, 2.0), rng.uniform(0.0, 0.8)
        seconds = {width: step * (1 + slope * width) * rng.uniform(0.9, 1.1) for width in WIDTHS}
        teach(policy, num_rows, seconds)
        measured = dict(zip(WIDTHS, policy.times.seconds(num_rows), strict=True))
        assert measured == pytest.approx(seconds, rel=1e-6)
        requests = [make_request() for _ in range(num_rows)]
        for request in requests:
            request.acceptance = sorted((rng.random() for _ in range(5)), reverse=True)
        rates = {
            width: sum(1 + sum(request.acceptance[:width]) for request in requests) / measured[width]
            for width in WIDTHS
        }
        policy.choose(requests)
        assert rates[policy._width] * 1.0051 >= max(rates.values())
        seen.add(policy._width)
    assert seen == set(WIDTHS)


def test_trials_lose_no_more_than_their_budget() -> None:
    """Counted from outside: seconds lost to the best number, with the true chances and the true times."""
    for seed, chance in enumerate((0.02, 0.5, 0.95)):
        policy, rng = make_policy(), random.Random(seed)
        times = {0: 1.0, 1: 1.3, 3: 1.9, 5: 2.5}
        requests = [make_request() for _ in range(8)]
        elapsed = 0.0
        num_tokens = width = 0
        chosen = []
        for _ in range(4000):
            proposals = policy.choose(requests)
            took = (times[width] + times[proposals]) / 2
            policy.see_step(num_rows=8, num_drafts=width, num_proposals=proposals, seconds=took)
            for request in requests:
                accepted = next((i for i in range(width) if rng.random() >= chance), width)
                policy.see_row(request, num_drafts=width, num_accepted=accepted)
                num_tokens += 1 + accepted
            elapsed += took
            width = proposals
            chosen.append(width)
        rates = {k: 8 * sum(chance**i for i in range(k + 1)) / times[k] for k in WIDTHS}
        assert num_tokens / elapsed > 0.97 * max(rates.values())
        assert set(chosen) == set(WIDTHS), "every number is tried"
        assert policy.lost <= 0.01 * policy.elapsed + policy.head_start + 1e-9


def test_times_between_measured_loads_lie_between() -> None:
    times = StepTimes(WIDTHS, BUCKETS)
    assert not times.has_measurement
    relative = times.seconds(4)
    assert relative == sorted(relative)
    for num_rows, seconds in ((1, 0.010), (16, 0.020)):
        for _ in range(5):
            times.record(num_rows, 3, seconds)
    assert times.seconds(1)[2] == pytest.approx(0.010)
    assert times.seconds(16)[2] == pytest.approx(0.020)
    assert 0.010 < times.seconds(4)[2] < 0.020
    assert times.seconds(4) == sorted(times.seconds(4))
    assert times.bucket(5) == 8 and times.bucket(16) == 16 and times.bucket(17) == 32 and times.bucket(100) == 128


def test_a_pause_does_not_spoil_a_time() -> None:
    times = StepTimes(WIDTHS, BUCKETS)
    for seconds in (5.0, 0.01, 0.011, 0.0105):  # the first one compiled something
        times.record(8, 3, seconds)
    assert times.seconds(8)[2] == pytest.approx(0.01, rel=0.05)
    times.record(8, 3, 3.0)
    assert times.seconds(8)[2] < 0.012
    for _ in range(40):
        times.record(8, 3, 0.02)  # it did change
    assert times.seconds(8)[2] == pytest.approx(0.02, rel=0.05)


def test_only_steady_steps_are_measured() -> None:
    policy = make_policy()
    policy.see_step(num_rows=4, num_drafts=0, num_proposals=5, seconds=1.0)
    policy.see_step(num_rows=4, num_drafts=2, num_proposals=2, seconds=1.0)
    assert not policy.times.has_measurement and policy.elapsed == 2.0
    policy.see_step(num_rows=4, num_drafts=3, num_proposals=3, seconds=1.0)
    assert policy.times.has_measurement
