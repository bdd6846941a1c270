"""Mistakes put into the scheduler, one at a time: each must turn the simulations red. A suite that cannot fail
proves nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import pytest

from outrider.core.content import ContentKey
from outrider.core.plan import RowPlan, RowResult, StepPlan, StepResult
from outrider.scheduler import prefix
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.prefix import Hit, PrefixCache
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.step import OpenStep

from .workloads import rotate, simulate, simulate_contents

Patch = pytest.MonkeyPatch


def publish_before_it_is_computed(patch: Patch) -> None:
    publish = PrefixCache.publish

    def early(self: PrefixCache, request: RequestState) -> None:
        known, request.num_computed_tokens = request.num_computed_tokens, request.num_tokens
        publish(self, request)
        request.num_computed_tokens = known

    patch.setattr(PrefixCache, "publish", early)


def count_rejected_drafts_as_computed(patch: Patch) -> None:
    settle_row = Scheduler._settle_row

    def all_accepted(self: Scheduler, request: RequestState, plan: RowPlan, result: RowResult) -> None:
        settle_row(self, request, plan, replace(result, num_accepted=result.num_drafts))

    patch.setattr(Scheduler, "_settle_row", all_accepted)


def share_without_a_reference(patch: Patch) -> None:
    def share(self: BlockPool, block_id: int) -> None:
        if self._references[block_id] == 0:
            del self._reusable[block_id]
            self._references[block_id] = 1

    patch.setattr(BlockPool, "share", share)


def free_a_shared_block_with_its_first_holder(patch: Patch) -> None:
    release = BlockPool.release

    def release_all(self: BlockPool, block_ids: list[int]) -> None:
        for block_id in list(block_ids):
            if self._references[block_id] > 0:
                self._references[block_id] = 1
                release(self, [block_id])

    patch.setattr(BlockPool, "release", release_all)


def lose_a_block(patch: Patch) -> None:
    release = BlockPool.release
    patch.setattr(BlockPool, "release", lambda self, block_ids: release(self, list(block_ids)[1:]))


def overwrite_a_published_block_under_its_name(patch: Patch) -> None:
    def allocate(self: BlockPool, count: int) -> list[int]:
        taken = [self._blank.popleft() if self._blank else self._reusable.popitem(last=False)[0] for _ in range(count)]
        for block_id in taken:
            self._references[block_id] = 1
        return taken

    patch.setattr(BlockPool, "allocate", allocate)


def name_blocks_without_what_is_before_them(patch: Patch) -> None:
    def extend(self: PrefixCache, request: RequestState, num_tokens: int) -> None:
        hashes, size = request.block_hashes, self.unit
        while len(hashes) < num_tokens // size:
            start = len(hashes) * size
            hashes.append(sha256(bytes(request.token_ids[start : start + size])).digest())

    patch.setattr(PrefixCache, "_extend_hashes", extend)


def take_a_hit_up_to_the_last_token(patch: Patch) -> None:
    match = PrefixCache.match

    def longer(self: PrefixCache, request: RequestState) -> Hit:
        request.token_ids.append(0)
        found = match(self, request)
        request.token_ids.pop()
        return found

    patch.setattr(PrefixCache, "match", longer)


def hand_on_another_boundary_block(patch: Patch) -> None:
    admission = Scheduler._admission
    patch.setattr(
        Scheduler,
        "_admission",
        lambda self, request, hit: admission(
            self, request, replace(hit, block_ids=[ids[:-1] for ids in hit.block_ids])
        ),
    )


def forget_tokens_in_flight(patch: Patch) -> None:
    put_row = Scheduler._put_row

    def put(self: Scheduler, request: RequestState, step: OpenStep, **values: int) -> None:
        put_row(self, request, step, **values)
        request.num_tokens_in_flight = 0

    patch.setattr(Scheduler, "_put_row", put)


def read_results_in_another_order(patch: Patch) -> None:
    settle = Scheduler.settle

    def settle_rolled(self: Scheduler, plan: StepPlan, result: StepResult) -> list[RequestState]:
        moved = [*result.rows[1:], result.rows[0]]
        rows = [
            replace(other, request_id=row.request_id, epoch=row.epoch)
            if (row.num_drafts, bool(row.token_ids)) == (other.num_drafts, bool(other.token_ids))
            else row
            for row, other in zip(result.rows, moved, strict=True)
        ]
        return settle(self, plan, replace(result, rows=tuple(rows)))

    patch.setattr(Scheduler, "settle", settle_rolled)


def forget_the_epoch(patch: Patch) -> None:
    leave = Scheduler._leave

    def keep_epoch(self: Scheduler, request: RequestState) -> None:
        epoch = request.epoch
        leave(self, request)
        request.epoch = epoch

    patch.setattr(Scheduler, "_leave", keep_epoch)


def turn_output_into_prompt_at_preemption(patch: Patch) -> None:
    preempt = Scheduler._preempt

    def forget_output(self: Scheduler, request: RequestState) -> None:
        request.num_prompt_tokens = len(request.token_ids)
        preempt(self, request)

    patch.setattr(Scheduler, "_preempt", forget_output)


def run_the_preempted_row_all_the_same(patch: Patch) -> None:
    patch.setattr(OpenStep, "drop", lambda self, request_id: None)


def ignore_the_budget_in_prompts(patch: Patch) -> None:
    put_chunk = Scheduler._put_chunk

    def put_all(self: Scheduler, request: RequestState, step: OpenStep) -> None:
        left, step.left = step.left, 1 << 30
        put_chunk(self, request, step)
        step.left = left

    patch.setattr(Scheduler, "_put_chunk", put_all)


def replay_without_the_confirmed_output(patch: Patch) -> None:
    preempt = Scheduler._preempt

    def restart(self: Scheduler, request: RequestState) -> None:
        preempt(self, request)
        del request.token_ids[request.num_prompt_tokens + 1 :]

    patch.setattr(Scheduler, "_preempt", restart)


def lose_a_preempted_request(patch: Patch) -> None:
    preempt = Scheduler._preempt

    def lose(self: Scheduler, request: RequestState) -> None:
        preempt(self, request)
        self.waiting.pop(0)

    patch.setattr(Scheduler, "_preempt", lose)


def lose_a_row(patch: Patch) -> None:
    leave = Scheduler._leave

    def keep_row(self: Scheduler, request: RequestState) -> None:
        leave(self, request)
        del self._free_rows[-1:]

    patch.setattr(Scheduler, "_leave", keep_row)


# each leak with the check that must see it
LEAKS: dict[Callable[[Patch], None], str] = {
    publish_before_it_is_computed: r"published before it was full|with stale entries|block \(0, \d+\) is written",
    count_rejected_drafts_as_computed: "statistics disagree|drafter KV is not|was published|is written",
    share_without_a_reference: "is lost or was freed early",
    free_a_shared_block_with_its_first_holder: "is lost or was freed early",
    lose_a_block: "is lost or was freed early",
    overwrite_a_published_block_under_its_name: r"published block \(0, \d+\) is written",
    name_blocks_without_what_is_before_them: "one name for two|not hold the prefix|another prefix|held twice",
    take_a_hit_up_to_the_last_token: "nothing is left to compute",
    hand_on_another_boundary_block: "last_cached_block is not the last of the cached blocks",
    forget_tokens_in_flight: "tokens in flight",
    read_results_in_another_order: "a result was applied to the wrong place",
    forget_the_epoch: "results of another life were not dropped",
    turn_output_into_prompt_at_preemption: "output was admitted as prompt",
    run_the_preempted_row_all_the_same: "a row is planned for a past life of its request",
    ignore_the_budget_in_prompts: "the step is larger than the budget",
    replay_without_the_confirmed_output: "confirmed output was lost",
    lose_a_preempted_request: "a request is in no queue",
    lose_a_row: "requests wait, nothing runs|rows are lost",
}


def simulate_many() -> None:
    for seed in range(40):
        simulate(seed, is_tight=seed % 2 == 1)
    for seed in range(10):
        rotate(seed)


def test_simulations_are_green_without_a_leak() -> None:
    simulate_many()


@pytest.mark.parametrize(("leak", "message"), LEAKS.items(), ids=[leak.__name__ for leak in LEAKS])
def test_leak_turns_the_simulations_red(leak: Callable[[Patch], None], message: str, monkeypatch: Patch) -> None:
    leak(monkeypatch)
    with pytest.raises(AssertionError, match=message):
        simulate_many()


def test_missing_lookahead_turns_the_simulations_red() -> None:
    with pytest.raises(AssertionError, match="too few blocks"):
        for seed in range(40):
            simulate(seed, num_lookahead=0, num_drafts=5, budget=40)


def name_blocks_without_their_content(patch: Patch) -> None:
    patch.setattr(prefix, "content_of_block", lambda contents, start, end: b"")


def name_blocks_by_content_without_its_place(patch: Patch) -> None:
    def keys(contents: Sequence[ContentKey], start: int, end: int) -> bytes:
        return b"".join(sorted(entry.key for entry in contents if entry.touches(start, end)))

    patch.setattr(prefix, "content_of_block", keys)


CONTENT_LEAKS = [
    name_blocks_without_their_content,
    name_blocks_by_content_without_its_place,
]


@pytest.mark.parametrize("leak", CONTENT_LEAKS, ids=lambda leak: leak.__name__)
def test_content_leak_turns_the_simulation_red(leak: Callable[[Patch], None], monkeypatch: Patch) -> None:
    leak(monkeypatch)
    with pytest.raises(
        AssertionError, match=r"is held twice|does not hold the prefix|one name for two prefixes|boundary feature"
    ):
        for seed in range(2000, 2080):
            simulate_contents(seed)
