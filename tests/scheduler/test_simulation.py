"""The scheduler under random workloads, against a device that checks every entry it reads and writes.

The checks of every simulation, after every operation, are in `loop.py` and `fake_device.py`; the tests of
`test_leaks.py` show that it can fail.
"""

from collections import Counter

import pytest

from .loop import Loop
from .workloads import simulate, simulate_contents


def first_and_more(start: int, count: int, more: int) -> pytest.MarkDecorator:
    """The first seeds for every run of the tests, and more for the long one."""
    first, others = range(start, start + count), range(start + count, start + count + more)
    return pytest.mark.parametrize("seeds", [first, pytest.param(others, marks=pytest.mark.slow)])


def coverage(loops: list[Loop]) -> Counter[str]:
    """Counts of events in the simulations."""
    met: Counter[str] = Counter()
    for loop in loops:
        met["dropped results"] += loop.num_dropped
        met["preempted in flight"] += loop.num_preempted_in_flight
        met["preempted at rest"] += loop.scheduler.num_preemptions - loop.num_preempted_in_flight
        met["prefix hits"] += loop.scheduler.prefix.num_hit_tokens
        met["aborted"] += sum(request.finish_reason == "abort" for request in loop.requests.values())
        met["stopped"] += sum(request.finish_reason == "stop" for request in loop.requests.values())
        met["chunks"] += sum(not row.does_sample for plan in loop.plans for row in plan.rows)
        met.update({f"{count} accepted": times for count, times in loop.device.num_accepted_seen.items()})
    return met


@first_and_more(0, 70, 140)
def test_every_output_is_the_models_whatever_the_schedule(seeds: range) -> None:
    met = coverage([simulate(seed) for seed in seeds])
    wanted = ["dropped results", "preempted in flight", "prefix hits", "aborted", "stopped", "chunks"]
    least = len(seeds) / 7
    assert all(met[name] > least for name in (*wanted, *(f"{count} accepted" for count in range(6)))), met


@first_and_more(500, 36, 60)
def test_crowd_on_the_smallest_pool_finishes(seeds: range) -> None:
    met = coverage([simulate(seed, is_tight=True) for seed in seeds])
    assert met["preempted in flight"] > len(seeds) * 2 / 3 and met["preempted at rest"] > 10, met


@first_and_more(900, 6, 12)
@pytest.mark.parametrize("is_tight", [False, True])
def test_equal_workloads_give_equal_plans(is_tight: bool, seeds: range) -> None:
    for seed in seeds:
        first, second = (simulate(seed, is_tight=is_tight) for _ in range(2))
        assert first.plans == second.plans, f"seed={seed}"


@pytest.mark.parametrize("num_drafts", [0, 1, 3, 5])
@pytest.mark.parametrize("depth", [0, 1])
def test_outputs_do_not_depend_on_depth_drafts_or_cache(num_drafts: int, depth: int) -> None:
    """Every job's output is compared with the model's; here with each pair of depth and k in turn."""
    for seed in range(950, 954):
        for caching in (False, True):
            simulate(seed, is_tight=seed % 2 == 0, num_drafts=num_drafts, depth=depth, caching=caching, budget=40)


@first_and_more(1000, 40, 80)
def test_every_step_may_ask_for_another_number_of_drafts(seeds: range) -> None:
    """Rows then verify what their own last step made; blocks and bounds hold, with every accepted count."""
    loops = [simulate(seed, is_tight=seed % 3 == 0, varies=True, accuracy=0.9) for seed in seeds]
    met = coverage(loops)
    least = len(seeds) / 4
    assert all(met[f"{count} accepted"] > least for count in range(5)), met
    asked = Counter(plan.num_proposals for loop in loops for plan in loop.plans)
    planned = Counter(row.num_drafts for loop in loops for plan in loop.plans for row in plan.rows)
    assert all(asked[count] > 5 * least and planned[count] > 2.5 * least for count in range(6)), (asked, planned)
    mixed = [
        plan
        for loop in loops
        for plan in loop.plans
        if len({row.num_drafts for row in plan.rows if row.num_drafts}) > 1
    ]
    assert len(mixed) > 1.5 * least, "rows that missed a step have another number than the others"


@first_and_more(2000, 40, 80)
def test_equal_ids_with_other_content_share_nothing_and_with_equal_content_they_do(seeds: range) -> None:
    """The device checks every entry that is read, target and drafter, behind hits and after preemption."""
    loops = [simulate_contents(seed) for seed in seeds]
    met = coverage(loops)
    assert met["prefix hits"] > 2000 and met["preempted in flight"] > 20, met
    hits_with_content = [
        admission
        for loop in loops
        for plan in loop.plans
        for admission in plan.admissions
        if admission.num_computed_tokens
        and any(key.first_token < admission.num_computed_tokens for key in loop.jobs[admission.request_id].contents)
    ]
    assert len(hits_with_content) > 50, "equal content is not shared"
