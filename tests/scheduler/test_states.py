"""Snapshots of a hybrid's states, as the host plans them: who is saved where, and who starts behind which."""

import pytest

from outrider.core.plan import RowResult, StepPlan, StepResult
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.states import StateSlots


class NoStops:
    """Ends nothing."""

    def check(self, request, token_ids):
        return len(token_ids), None


def scheduler(*, num_slots: int = 8, budget: int = 64, num_drafts: int = 0) -> Scheduler:
    return Scheduler(
        num_blocks=64, block_size=16, max_num_seqs=4, max_num_batched_tokens=budget, num_drafts=num_drafts,
        num_lookahead=0, enable_prefix_caching=True, stop_checker=NoStops(), num_state_slots=num_slots,
    )  # fmt: skip


def add(engine: Scheduler, name: str, prompt: list[int], *, max_tokens: int = 4) -> Request:
    request = Request(
        request_id=name, prompt_token_ids=prompt, params=SamplingParams(max_tokens=max_tokens), seed=0,
        eos_token_ids=(), max_total_tokens=len(prompt) + max_tokens,
    )  # fmt: skip
    request.speculation.num_accepted_tokens_per_pos = [0] * 16
    engine.add(request)
    return request


def step(engine: Scheduler, *, accepted: int = 0) -> StepPlan | None:
    """Plan a step, and settle it at once: every row emits 7s."""
    plan = engine.plan()
    if plan is None:
        return None
    rows = [
        RowResult(
            request_id=row.request_id, epoch=row.epoch, num_drafts=row.num_drafts,
            token_ids=(7,) * (1 + min(accepted, row.num_drafts)) if row.does_sample else (),
            num_accepted=min(accepted, row.num_drafts) if row.does_sample else 0,
        )
        for row in plan.rows
    ]  # fmt: skip
    engine.settle(plan, StepResult(step_id=plan.step_id, rows=tuple(rows)))
    return plan


def run(engine: Scheduler) -> list[StepPlan]:
    plans = []
    while (plan := step(engine)) is not None:
        plans.append(plan)
    return plans


def saved(plans: list[StepPlan]) -> list[int]:
    return [save.length for plan in plans for save in plan.state_saves]


def test_the_last_slot_used_is_the_last_overwritten():
    slots = StateSlots(2)
    first, second = slots.take(b"a"), slots.take(b"b")
    assert slots.find(b"a") == first
    assert slots.take(b"c") == second and not slots.has(b"b") and slots.has(b"a")
    assert StateSlots(0).take(b"a") is None


def test_states_are_saved_behind_chunks_and_at_the_end():
    engine = scheduler(budget=40)
    add(engine, "a", list(range(70)), max_tokens=20)
    assert saved(run(engine)) == [32, 64]  # chunks of 40 and 30 tokens
    add(engine, "b", [5])  # what ended is saved in the step that comes next
    plan = step(engine)
    assert plan is not None and [save.length for save in plan.state_saves] == [80]


def test_the_next_turn_starts_behind_the_last_full_block():
    engine = scheduler()
    first = add(engine, "a", list(range(20)), max_tokens=30)
    run(engine)
    second = add(engine, "b", [*first.token_ids, 1, 2, 3])
    plan = step(engine)
    (admission,) = plan.admissions
    assert admission.num_computed_tokens == second.num_cached_tokens == 48
    (save,) = plan.state_saves
    assert (save.length, save.slot) == (48, admission.state_slot), "saved first, then read"


def test_without_a_snapshot_blocks_are_no_hit_and_the_parting_is_worth_a_stop():
    engine = scheduler()
    common = list(range(40))
    add(engine, "a", [*common, *range(100, 120)])
    run(engine)
    add(engine, "b", [*common, *range(200, 220)])
    plans = run(engine)
    assert plans[0].admissions[0].num_computed_tokens == 0
    assert plans[0].rows[0].num_tokens == 32, "the blocks in common end there"
    add(engine, "c", [*common, *range(300, 320)])
    plan = step(engine)
    assert plan.admissions[0].num_computed_tokens == 32


def test_a_snapshot_overwritten_is_no_hit():
    engine = scheduler(num_slots=1)
    add(engine, "a", list(range(40)))
    run(engine)
    add(engine, "b", list(range(100, 140)))
    run(engine)
    add(engine, "a again", list(range(40)))
    assert step(engine).admissions[0].num_computed_tokens == 0


def test_a_preempted_prompt_in_flight_saves_nothing_wrong():
    """The state may stand behind the last confirmed block: there is no snapshot of what it was there."""
    engine = scheduler(budget=40)
    request = add(engine, "a", list(range(70)))
    plan = engine.plan()
    assert plan.rows[0].num_tokens == 40
    engine.abort(request.request_id)
    add(engine, "b", [5, 6, 7])
    assert engine.plan().state_saves == ()


@pytest.mark.parametrize("num_drafts", [0, 3])
def test_the_end_of_an_output_is_saved_whoever_drafted(num_drafts):
    lengths = []
    engine = scheduler(num_drafts=num_drafts)
    add(engine, "a", list(range(20)), max_tokens=45)
    while (plan := step(engine, accepted=2)) is not None:
        lengths += [save.length for save in plan.state_saves]
    add(engine, "b", [5])
    lengths += [save.length for save in step(engine).state_saves]
    assert lengths == [16, 64]
