"""The adaptive number of drafts: what it believes, what it chooses, and what its trials may cost."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from outrider.core.config import SpeculativeConfig
from outrider.core.outputs import SpeculationStats
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.draft_policy import AdaptiveDrafts, FixedDrafts
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.step_times import StepTimes

WIDTHS = (0, 1, 3, 5)
BUCKETS = (1, 2, 4, 8, 16)


def make_request(*, most: int | None = None) -> RequestState:
    request = Request(
        request_id="r", prompt_token_ids=(1,), params=SamplingParams(num_speculative_tokens=most), seed=0,
        eos_token_ids=(), max_total_tokens=100,
    )  # fmt: skip
    return RequestState(request=request, speculation=SpeculationStats.zero(5))


def make_policy() -> AdaptiveDrafts:
    return AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS)


def see(policy: AdaptiveDrafts, request: RequestState, *, num_drafts: int, num_accepted: int) -> None:
    """Shows a row to the policy as the scheduler does, which counts the steps of a request first."""
    policy.see_row(request, num_drafts=num_drafts, num_accepted=num_accepted)
    request.speculation.record(num_drafts=num_drafts, num_accepted=num_accepted)


def teach(policy: AdaptiveDrafts, num_rows: int, seconds: dict[int, float]) -> None:
    for width, took in seconds.items():
        for _ in range(100):
            policy.see_step(num_rows=num_rows, num_drafts=width, num_proposals=width, seconds=took)


def test_a_fixed_number_is_fixed() -> None:
    assert FixedDrafts(4).choose([]) == FixedDrafts(4).choose([make_request()]) == 4


@pytest.mark.parametrize(
    ("k", "widths"),
    [(1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 2, 3)), (5, (0, 1, 2, 3, 5)), (16, (0, 1, 2, 8, 16))],
)
def test_allowed_numbers_are_few(k: int, widths: tuple[int, ...]) -> None:
    adaptive = SpeculativeConfig(method="ngram", num_speculative_tokens=k, adaptive=True)
    assert adaptive.draft_widths == widths
    assert SpeculativeConfig(method="ngram", num_speculative_tokens=k).draft_widths == (k,)


def believed(policy: AdaptiveDrafts, request: RequestState) -> list[float]:
    """The chances that the policy's tokens of a step of this request alone are made of."""
    tokens = AdaptiveDrafts(range(6), row_buckets=BUCKETS)
    tokens.acceptance = policy.acceptance
    return [more - less for less, more in pairwise(tokens._expected_tokens([request]))]


def test_estimates_approach_what_is_seen() -> None:
    policy, rng = make_policy(), random.Random(3)
    requests = [make_request() for _ in range(8)]
    chances = [(0.9, 0.8, 0.5, 0.4, 0.3), (0.7, 0.4, 0.1, 0.0, 0.0)]
    policy.choose(requests)
    assert believed(policy, requests[0]) == pytest.approx(policy.acceptance)
    for _ in range(2000):
        for index, request in enumerate(requests):
            luck = rng.random()
            num_accepted = sum(luck < chance for chance in chances[index % 2])
            see(policy, request, num_drafts=5, num_accepted=num_accepted)
    means = [sum(pair) / 2 for pair in zip(*chances, strict=True)]
    assert policy.acceptance == pytest.approx(means, abs=0.15)
    for first in (0, 1):
        rows = [believed(policy, request) for request in requests[first::2]]
        assert [sum(column) / 4 for column in zip(*rows, strict=True)] == pytest.approx(chances[first], abs=0.1)
    newcomer = make_request()
    assert believed(policy, newcomer) == pytest.approx(policy.acceptance), "a new request is like all"


def test_behind_the_last_draft_made_estimates_fall_geometrically() -> None:
    policy = make_policy()
    request = make_request()
    for step in range(4000):
        see(policy, request, num_drafts=1, num_accepted=int(step % 10 < 9))
    assert believed(policy, request) == pytest.approx([0.9**place for place in range(1, 6)], abs=0.05)
    for step in range(4000):
        see(policy, request, num_drafts=2, num_accepted=2 if step % 10 < 4 else 0)
    assert believed(policy, request) == pytest.approx([0.4, 0.4, 0.16, 0.064, 0.0256], abs=0.05)


def test_no_drafts_teach_nothing() -> None:
    policy = make_policy()
    request = make_request()
    policy.see_row(request, num_drafts=0, num_accepted=0)
    assert policy.acceptance == make_policy().acceptance and not request.acceptance


def test_drafts_that_a_request_does_not_want_are_worth_nothing() -> None:
    policy = make_policy()
    requests = [make_request(most=1) for _ in range(3)]
    teach(policy, 3, {0: 1.0, 1: 1.01, 3: 1.02, 5: 1.03})
    for _ in range(10):
        policy.choose(requests)
        for request in requests:
            see(policy, request, num_drafts=1, num_accepted=1)
    assert all(believed(policy, request)[1:] == pytest.approx([0.0] * 4) for request in requests)
    assert WIDTHS[policy._place] == 1
    assert policy.acceptance[1:] == make_policy().acceptance[1:], "and teach nothing of the others'"


def test_the_choice_is_the_best_of_all() -> None:
    """Against a brute force over the allowed numbers, with measured times; nothing else is chosen but in trials."""
    rng = random.Random(11)
    seen = set()
    for _ in range(100):
        num_rows = rng.choice((1, 3, 8, 15))
        policy = make_policy()
        step, slope = rng.uniform(0.5, 2.0), rng.uniform(0.0, 0.8)
        seconds = {width: step * (1 + slope * width) * rng.uniform(0.9, 1.1) for width in WIDTHS}
        teach(policy, num_rows, seconds)
        measured = dict(zip(WIDTHS, policy.times.seconds(num_rows), strict=True))
        assert measured == pytest.approx(seconds, rel=1e-6)
        policy.acceptance = sorted((rng.random() for _ in range(5)), reverse=True)
        rates = {width: num_rows * (1 + sum(policy.acceptance[:width])) / measured[width] for width in WIDTHS}
        requests = [make_request() for _ in range(num_rows)]
        for _ in range(500):
            policy.choose(requests)
        assert rates[WIDTHS[policy._place]] * 1.01 >= max(rates.values())
        seen.add(WIDTHS[policy._place])
    assert seen == set(WIDTHS)


@pytest.mark.parametrize("now", range(len(WIDTHS)))
def test_slow_requests_count_as_often_as_they_come(now: int) -> None:
    """Requests of two kinds come in equal numbers and end after as many tokens. Under the present number of drafts the
    slow kind fills more rows; what another number would give is the rate of all, once its own rows have settled."""
    policy = make_policy()
    policy._place = now
    kinds = [(0.9, 0.85, 0.8, 0.75, 0.7), (0.2, 0.1, 0.0, 0.0, 0.0)]
    tokens = [[1 + sum(kind[:width]) for width in WIDTHS] for kind in kinds]
    requests = []
    for kind, of_kind in zip(kinds, tokens, strict=True):
        for _ in range(round(1000 / of_kind[now])):
            requests.append(make_request())
            requests[-1].acceptance = [chance - all_ for chance, all_ in zip(kind, policy.acceptance, strict=True)]
    expected = policy._expected_tokens(requests)
    settled = [2 / sum(1 / of_kind[place] for of_kind in tokens) for place in range(len(WIDTHS))]
    assert [value / expected[now] for value in expected] == pytest.approx(
        [value / settled[now] for value in settled], rel=1e-3
    )
    assert expected[now] == pytest.approx(sum(1 + sum(kinds[i][: WIDTHS[now]]) for i in (0, 1)
                                              for _ in range(round(1000 / tokens[i][now]))))  # fmt: skip


def test_a_change_must_be_worth_its_price() -> None:
    """An advantage that comes and goes changes nothing; one that lasts does, after as long as the change costs."""
    policy = make_policy()
    teach(policy, 4, {0: 1.0, 1: 1.5, 3: 2.0, 5: 2.5})
    policy.acceptance = [0.55, 0.0, 0.0, 0.0, 0.0]
    requests = [make_request() for _ in range(4)]
    for _ in range(500):
        policy.choose(requests)
    assert WIDTHS[policy._place] == 1
    for step in range(200):
        policy.acceptance[0] = 0.55 if step % 2 else 0.45
        policy.choose(requests)
        assert WIDTHS[policy._place] == 1
    policy.acceptance[0] = 0.45
    num_steps = 0
    while WIDTHS[policy._place] == 1 and num_steps < 100:
        policy.choose(requests)
        num_steps += 1
    assert 2 < num_steps < 100


def run(
    policy: AdaptiveDrafts, *, chances: Sequence[float], times: dict[int, float], num_steps: int
) -> tuple[list[int], float]:
    """Eight requests, each draft accepted with its probability: the chosen numbers, and tokens per second relative to
    the best number."""
    rng = random.Random(num_steps)
    requests = [make_request() for _ in range(8)]
    num_tokens = width = 0
    elapsed = 0.0
    chosen = []
    for _ in range(num_steps):
        proposals = policy.choose(requests)
        took = times[max(width, proposals)]
        policy.see_step(num_rows=8, num_drafts=width, num_proposals=proposals, seconds=took)
        for request in requests:
            luck = rng.random()
            accepted = sum(luck < chance for chance in chances[:width])
            see(policy, request, num_drafts=width, num_accepted=accepted)
            num_tokens += 1 + accepted
        elapsed += took
        width = proposals
        chosen.append(width)
    rates = {k: 8 * (1 + sum(chances[:k])) / times[k] for k in WIDTHS}
    return chosen, num_tokens / elapsed / max(rates.values())


TIMES = {0: 1.0, 1: 1.3, 3: 1.9, 5: 2.5}


@pytest.mark.parametrize("chance", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("is_known", [False, True])
def test_trials_lose_no_more_than_their_budget(chance: float, is_known: bool) -> None:
    """Counted from outside: seconds lost to the best number, with the true chances and the true times."""
    known = {(rows, width): took for rows in BUCKETS for width, took in TIMES.items()} if is_known else None
    policy = AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS, known=known)
    chances = [chance ** (place + 1) for place in range(5)]
    chosen, ratio = run(policy, chances=chances, times=TIMES, num_steps=4000)
    assert ratio > 0.97
    assert policy.lost <= 0.005 * policy.elapsed + 1e-9 and policy.lost_on_times <= policy.head_start + 1e-9
    if not is_known:
        assert set(chosen) == set(WIDTHS), "of no number was the time known"


def test_what_cannot_win_is_not_tried() -> None:
    """Times known before, every draft accepted: nothing is to be learned below the largest number; and above none,
    where one draft takes more than a token's time."""
    known = {(rows, width): took for rows in BUCKETS for width, took in TIMES.items()}
    policy = AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS, known=known)
    chosen, _ = run(policy, chances=[1.0] * 5, times=TIMES, num_steps=500)
    assert set(chosen[100:]) == {5}
    slow = {width: 1.0 + 2.0 * width for width in WIDTHS}
    known = {(rows, width): took for rows in BUCKETS for width, took in slow.items()}
    policy = AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS, known=known)
    chosen, ratio = run(policy, chances=[1.0] * 5, times=slow, num_steps=500)
    assert set(chosen) == {0} and ratio == pytest.approx(1.0)


def test_good_text_is_noticed_where_nothing_is_drafted() -> None:
    times = {0: 1.0, 1: 1.6, 3: 2.5, 5: 3.5}
    known = {(rows, width): took for rows in BUCKETS for width, took in times.items()}
    policy = AdaptiveDrafts(WIDTHS, row_buckets=BUCKETS, known=known)
    run(policy, chances=[0.1, 0.0, 0.0, 0.0, 0.0], times=times, num_steps=3000)
    assert WIDTHS[policy._place] == 0
    chosen, _ = run(policy, chances=[0.95, 0.9, 0.85, 0.8, 0.75], times=times, num_steps=4000)
    assert set(chosen[-1000:]) == {5}


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
    assert times.doubt(1, 3) == 0.0 and times.doubt(1, 5) == times.doubt(4, 3) == math.inf
    assert times.bucket(5) == 8 and times.bucket(16) == 16 and times.bucket(17) == 32 and times.bucket(100) == 128


def test_known_times_hold_until_they_are_corrected() -> None:
    """A slowdown of every number of drafts is distinguished from a slowdown of one."""
    known = {(rows, width): 1.0 + 0.1 * width + 0.01 * rows for rows in BUCKETS for width in WIDTHS}
    times = StepTimes(WIDTHS, BUCKETS, known)
    assert times.has_measurement and all(0.0 < times.doubt(rows, width) < 1.0 for rows in BUCKETS for width in WIDTHS)
    assert times.seconds(3) == pytest.approx([known[4, width] for width in WIDTHS])
    for _ in range(50):
        times.record(4, 3, 1.5 * known[4, 3])  # real rows
    assert times.seconds(4) == pytest.approx([1.5 * known[4, width] for width in WIDTHS])
    assert times.seconds(8) == pytest.approx([known[8, width] for width in WIDTHS]), "other loads have other contexts"
    for _ in range(50):
        times.record(4, 0, 1.5 * known[4, 0] + 0.3)  # the host is not done before that
    assert times.seconds(4)[0] == pytest.approx(1.5 * known[4, 0] + 0.3, rel=1e-2)
    assert times.seconds(4)[2] == pytest.approx(1.5 * known[4, 3], rel=0.03)
    for step in range(400):
        times.record(4, 3, 1.5 * known[4, 3] + step / 400)  # contexts grow
    assert times.seconds(4)[2] == pytest.approx(1.5 * known[4, 3] + 1.0, rel=0.02)
    assert times.seconds(4)[0] == pytest.approx(1.5 * known[4, 0] + 1.3, rel=0.05), "without drafts they are read, too"


def test_beyond_the_known_loads_times_are_scaled() -> None:
    times = StepTimes((0, 1), (1, 2), {(1, 0): 1.0, (1, 1): 1.1, (2, 0): 1.2, (2, 1): 1.4})
    assert 1.2 < times.seconds(4)[0] < times.seconds(64)[0]
    assert times.seconds(4)[1] > times.seconds(4)[0]


def test_a_pause_does_not_spoil_a_time() -> None:
    times = StepTimes(WIDTHS, BUCKETS)
    for seconds in (5.0, 0.01, 0.011, 0.0105):  # the first one compiled something
        times.record(8, 3, seconds)
    assert times.seconds(8)[2] == pytest.approx(0.0105, rel=0.05)
    times.record(8, 3, 3.0)
    assert times.seconds(8)[2] < 0.012
    for _ in range(60):
        times.record(8, 3, 0.02)  # it did change
    assert times.seconds(8)[2] == pytest.approx(0.02, rel=0.05)


def test_only_steady_steps_are_measured() -> None:
    policy = make_policy()
    policy.see_step(num_rows=4, num_drafts=0, num_proposals=5, seconds=1.0)
    policy.see_step(num_rows=4, num_drafts=2, num_proposals=2, seconds=1.0)
    assert not policy.times.has_measurement and policy.elapsed == 2.0
    for _ in range(2):
        policy.see_step(num_rows=4, num_drafts=3, num_proposals=3, seconds=1.0)
    assert policy.times.has_measurement
