"""Snapshots of a hybrid's states, as the host plans them: who is saved where, and who starts behind which."""

import random

import pytest
import torch

from outrider.core.content import ContentKey, content_digest
from outrider.core.kv_groups import BlockGroup
from outrider.core.outputs import FinishReason
from outrider.core.plan import RowResult, StepPlan, StepResult
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.kernels.interface.state import CHUNK
from outrider.kernels.reference.gated_delta import state_rows
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.snapshot_index import SnapshotIndex
from outrider.scheduler.snapshots import Snapshots
from outrider.scheduler.text_rules import Stop


class NoStops:
    """Ends nothing."""

    def check(self, request, token_ids):
        return len(token_ids), None


def scheduler(*, num_slots: int = 8, budget: int = 64, num_drafts: int = 0, block_size: int = 16) -> Scheduler:
    return Scheduler(
        groups=(BlockGroup(block_size=block_size),), num_blocks=(64,), max_num_seqs=4, max_num_batched_tokens=budget,
        num_drafts=num_drafts, num_lookahead=0, enable_prefix_caching=True, stop_rule=NoStops(),
        num_snapshots=num_slots,
    )  # fmt: skip


def add(
    engine: Scheduler, name: str, prompt: list[int], *, max_tokens: int = 4, contents: tuple[ContentKey, ...] = ()
) -> RequestState:
    request = Request(
        request_id=name, prompt_token_ids=tuple(prompt), params=SamplingParams(max_tokens=max_tokens), seed=0,
        eos_token_ids=(), max_total_tokens=len(prompt) + max_tokens, content_keys=contents,
    )  # fmt: skip
    return engine.add(request)


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
    slots = SnapshotIndex(2)
    first, second = slots.take(b"a"), slots.take(b"b")
    assert slots.find(b"a") == first
    assert slots.take(b"c") == second and not slots.has(b"b") and slots.has(b"a")
    assert SnapshotIndex(0).take(b"a") is None


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
    assert (save.length, save.snapshot_id) == (48, admission.snapshot_id), "saved first, then read"


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
    """The state may already be past the last confirmed block: then there is no snapshot of it at that block's end."""
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


def test_large_blocks_are_found_again_by_the_next_turn():
    """A state moves on within a block of 64, so it is saved where the block ends: in the prompt, and while decoding."""
    engine = scheduler(block_size=64, budget=512)
    first = add(engine, "a", list(range(150)), max_tokens=120)
    plans = run(engine)
    assert [plan.rows[0].num_tokens for plan in plans[:3]] == [128, 22, 1]
    assert saved(plans) == [128, 192, 256]
    slots = [save.snapshot_id for plan in plans for save in plan.state_saves]
    assert slots[1] == slots[2] != slots[0], "of those taken while decoding the last is kept"
    add(engine, "b", [*first.token_ids, 1, 2, 3])
    assert step(engine).admissions[0].num_computed_tokens == 256


def test_a_snapshot_of_another_is_not_given_up():
    engine = scheduler(block_size=32)
    first = add(engine, "a", [5] * 20, max_tokens=12)
    run(engine)  # ends where its first block does
    second = add(engine, "b", [5] * 20, max_tokens=60)
    run(engine)  # says the same and more, and passes there
    assert first.token_ids[:31] == second.token_ids[:20] + [7] * 11
    for text, found in ((first.token_ids, 0), (second.token_ids, 64)):
        add(engine, f"again {found}", [*text, 1])
        assert step(engine).admissions[0].num_computed_tokens == found


@pytest.mark.parametrize("num_tokens", [5, None])
def test_a_snapshot_with_other_content_is_no_hit(num_tokens):
    """Snapshots are named like blocks; equal ids and content start behind one, equal ids alone do not."""
    engine = scheduler()
    pictures = [
        (ContentKey(key=content_digest("image", name), first_token=2, num_tokens=num_tokens),) for name in (b"a", b"b")
    ]
    prompt = list(range(60))
    add(engine, "first", prompt, contents=pictures[0])
    run(engine)
    found = {}
    for name, contents in (("other", pictures[1]), ("equal", pictures[0]), ("none", ())):
        add(engine, name, prompt, contents=contents)
        found[name] = step(engine).admissions[0].num_computed_tokens
        run(engine)
    assert found == {"other": 0, "equal": 48, "none": 0}


class Device:
    """Positions of a hybrid's states, moved by the kernel itself; checks every snapshot before it is taken."""

    def __init__(self, num_drafts: int) -> None:
        self.most_open = CHUNK + 2 * num_drafts
        self.computed, self.lengths, self.known = (torch.zeros(5, dtype=torch.int64) for _ in range(3))
        self.num_saves = 0

    def begin(self, plan: StepPlan) -> None:
        for save in plan.state_saves:
            self.num_saves += 1
            assert self.lengths[save.row] <= save.length <= self.computed[save.row], "the state has moved past it"
            assert save.length - self.lengths[save.row] <= self.most_open, "the ring does not reach so far back"
        for entry in plan.admissions:
            for table in (self.computed, self.lengths, self.known):
                table[entry.row] = entry.num_computed_tokens

    def step(self, plan: StepPlan, rng: random.Random) -> StepResult:
        rows = torch.tensor([row.row for row in plan.rows])
        drafts = torch.tensor([row.num_drafts for row in plan.rows])
        num_known = torch.tensor([row.num_tokens for row in plan.rows]) - drafts
        _, _, _, targets, known = state_rows(
            self.computed, self.lengths, self.known, rows=rows, num_known=num_known, num_drafts=drafts,
            num_tokens_left=torch.ones_like(rows),
        )  # fmt: skip
        accepted = [rng.choice((0, row.num_drafts, rng.randint(0, row.num_drafts))) for row in plan.rows]
        self.computed[rows] += num_known + torch.tensor(accepted)
        self.lengths[rows], self.known[rows] = targets, known
        assert (self.computed - self.lengths <= self.most_open).all(), "more tokens are open than the ring holds"
        return StepResult(
            step_id=plan.step_id,
            rows=tuple(
                RowResult(
                    request_id=row.request_id, epoch=row.epoch, num_drafts=row.num_drafts, num_accepted=count,
                    token_ids=tuple(rng.randrange(2) for _ in range(1 + count)) if row.does_sample else (),
                ) for row, count in zip(plan.rows, accepted, strict=True)
            ),
        )  # fmt: skip


class RandomStops:
    """Cuts what a step emitted, now and then."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def check(self, request, token_ids):
        if self.rng.random() < 0.02:
            return self.rng.randint(1, len(token_ids)), Stop(FinishReason.STOP)
        return len(token_ids), None


def simulate(seed: int) -> int:
    """Random requests: chunks, refused drafts, stops, aborts, a step in flight. Gives the number of snapshots."""
    rng = random.Random(seed)
    num_drafts = rng.choice((0, 1, 3, 8, 16))
    engine = Scheduler(
        num_blocks=(rng.choice((14, 40)),), groups=(BlockGroup(block_size=rng.choice((16, 32, 64))),), max_num_seqs=4,
        max_num_batched_tokens=rng.choice((17, 40, 200)) + num_drafts, num_drafts=num_drafts, num_lookahead=0,
        enable_prefix_caching=True, stop_rule=RandomStops(rng), num_snapshots=rng.choice((1, 5, 40)),
    )  # fmt: skip
    device, flying, number = Device(num_drafts), [], 0
    depth = rng.choice((0, 1))
    for _ in range(120):
        while len(engine.waiting) < 2:
            number += 1
            add(
                engine,
                str(number),
                [rng.randrange(2) for _ in range(rng.randint(1, 90))],
                max_tokens=rng.randint(1, 90),
            )
        if rng.random() < 0.03 and engine.running:
            engine.abort(rng.choice(engine.running).request_id)
        plan = engine.plan()
        if plan is not None:
            device.begin(plan)
            flying.append((plan, device.step(plan, rng)))
        if len(flying) > depth or (plan is None and flying):
            engine.settle(*flying.pop(0))
    return device.num_saves


def test_no_snapshot_is_taken_too_late():
    for seed in range(40):
        assert simulate(seed) > 0, f"seed={seed}"


@pytest.mark.parametrize(
    ("leak", "message"),
    [("the step in flight", "the state has moved past it"), ("the ring", "more tokens are open|does not reach so far")],
)
def test_a_snapshot_taken_too_late_is_seen(monkeypatch, leak, message):
    """A leak put in: the host forgets how far a step in flight may move a state, or saves at the end only."""
    if leak == "the step in flight":
        original = Snapshots.end

        def end(self, state):
            self._places[state].reach = 0
            original(self, state)

        monkeypatch.setattr(Snapshots, "end", end)
    else:
        monkeypatch.setattr(Device, "most_open", property(lambda self: CHUNK, lambda self, value: None), raising=False)
    with pytest.raises(AssertionError, match=message):
        for seed in range(40):
            simulate(seed)
