"""Several groups of layers, with windows: blocks go back in time and never too early, hits are the longest possible.

The device of the simulations keeps the KV of each group and checks every entry that is read (`fake_device.py`), the
loop what is held after every operation (`loop.py`), and here every hit is compared with a slow search.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from outrider.core.errors import RequestError
from outrider.core.kv_groups import BlockGroup
from outrider.scheduler.kv_blocks import KVBlocks
from outrider.scheduler.prefix import Hit, PrefixCache
from outrider.scheduler.request_state import RequestState

from .hash_model import SIZE, Job, Setting, entries_of
from .loop import Loop
from .workloads import random_jobs

FULL = BlockGroup(block_size=SIZE)


def window(count: int, *, block_size: int = SIZE) -> BlockGroup:
    return BlockGroup(block_size=block_size, window=count)


GROUPS = {
    "full and window": (FULL, window(20)),
    "two windows": (window(40), window(16)),
    "one window": (window(9),),
    "three, the shortest window": (FULL, window(2), window(33)),
    "blocks of two sizes": (FULL, window(20, block_size=8)),
    "larger blocks under the window": (window(24, block_size=32), window(70)),
}


class GroupLoop(Loop):
    """Compares every hit with a slow search over what is published."""

    def __init__(self, setting: Setting, *, seed: int) -> None:
        super().__init__(setting, seed=seed)
        self.hits: list[tuple[RequestState, int]] = []
        self._match = self.scheduler.prefix.match
        self.scheduler.prefix.match = self._checked_match  # type: ignore[method-assign]

    def _checked_match(self, state: RequestState) -> Hit:
        hit = self._match(state)
        assert hit.num_tokens == hit.num_shared_tokens == self._slow_match(state), "another hit is the longest"
        self.hits.append((state, hit.num_tokens))
        return hit

    def _slow_match(self, state: RequestState) -> int:
        """The longest of all lengths at which every group has a block end, and all blocks that the next token sees."""
        if not self.setting.caching:
            return 0
        ends = {(block[0], self.device.target[block][-1]) for block in self.published()}
        entries = entries_of(state.token_ids, contents=state.request.content_keys)

        def serves(group: int, length: int) -> bool:
            size, seen = self.setting.groups[group].block_size, self.setting.groups[group].window
            needed = range(length) if seen is None else range(max(0, length + 1 - seen), length)
            blocks = {index // size for index in needed}
            return length % size == 0 and all((group, entries[(block + 1) * size - 1]) in ends for block in blocks)

        lengths = range(state.num_tokens - 1, 0, -1)
        groups = range(len(self.setting.groups))
        return next((length for length in lengths if all(serves(group, length) for group in groups)), 0)


def simulate(groups: tuple[BlockGroup, ...], seed: int) -> GroupLoop:
    """A random crowd on pools from the least that holds its largest request to ample ones."""
    rng = random.Random(seed)
    is_tight = rng.random() < 0.5
    jobs = random_jobs(rng, is_tight=is_tight)
    num_drafts = rng.choice((0, 1, 3))
    budget = rng.choice((1 + num_drafts, 2 * (1 + num_drafts) + num_drafts, 16, 40, 200))
    has_kv, depth = rng.random() < 0.7, rng.choice((0, 1, 1, 2))
    lookahead = num_drafts - 1 if has_kv and num_drafts else 0
    probe = KVBlocks(groups, [2] * len(groups), most_ahead=max(budget, 1 + num_drafts) + 1 + lookahead)
    counts = [
        1 + max(probe.most_blocks(group, job.max_total) for job in jobs) + rng.choice((0, 1, 3, 40)) for group in groups
    ]
    setting = Setting(
        groups=groups, num_blocks=counts[0], other_blocks=tuple(counts[1:]), max_num_seqs=rng.choice((1, 3, 6)),
        budget=budget, num_drafts=num_drafts, has_drafter_kv=has_kv, depth=depth, caching=rng.random() < 0.8,
        accuracy=rng.choice((0.0, 0.7, 1.0)),
    )  # fmt: skip
    try:
        loop = GroupLoop(setting, seed=seed)
        loop.run(jobs)
        return loop
    except AssertionError as error:
        error.add_note(f"seed={seed}, {setting}")
        raise


SEEDS = range(15)
MORE_SEEDS = range(15, 60)


def simulate_many(name: str, seeds: range = SEEDS) -> list[GroupLoop]:
    return [simulate(GROUPS[name], seed) for seed in seeds]


@pytest.mark.parametrize("seeds", [SEEDS, pytest.param(MORE_SEEDS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GROUPS)
def test_every_output_is_the_models_and_no_block_is_lost(name: str, seeds: range) -> None:
    loops = simulate_many(name, seeds)
    assert sum(loop.scheduler.num_preemptions for loop in loops) > 5
    assert sum(loop.num_preempted_in_flight for loop in loops) > 3
    assert sum(length > 0 for loop in loops for _, length in loop.hits) > 10, "no prefix was found"
    assert sum(not row.does_sample for loop in loops for plan in loop.plans for row in plan.rows) > 20, "no chunks"
    assert any(0 in entry.block_ids for loop in loops for plan in loop.plans for entry in plan.new_blocks), (
        "no hit began behind its window"
    )


def test_a_second_group_with_room_for_everything_changes_no_row() -> None:

    def plans(loop: GroupLoop) -> list[Any]:
        return [(plan.rows, [(e.row, e.num_computed_tokens) for e in plan.admissions]) for plan in loop.plans]

    for seed in range(12):
        rng = random.Random(seed)
        jobs = random_jobs(rng, is_tight=True)
        largest = max(-(-job.max_total // SIZE) for job in jobs)
        common: dict[str, Any] = {"num_blocks": 1 + largest + rng.choice((0, 2)), "caching": False}
        alone = GroupLoop(Setting(**common), seed=seed)
        beside = GroupLoop(Setting(groups=(FULL, window(30)), other_blocks=(500,), **common), seed=seed)
        alone.run(jobs)
        beside.run(jobs)
        assert plans(alone) == plans(beside), f"seed={seed}"


def test_a_window_holds_no_more_than_it_needs() -> None:
    """A prompt of 2000 tokens in chunks of 64 under a window of 40: at most two chunks, the window and two ends."""
    setting = Setting(groups=(FULL, window(40)), num_blocks=160, other_blocks=(14,), budget=64, depth=1)
    loop = GroupLoop(setting, seed=0)
    request = loop.add(Job(request_id="a", prompt=tuple(index % 40 for index in range(2000)), max_tokens=300))
    most = 0
    while loop.scheduler.has_work:
        loop.turn()
        most = max(most, *(len(blocks.ids) - blocks.num_released for blocks in request.blocks[1:]), 0)
    loop.run()
    assert 2 < most <= (40 + 2 * 64) // SIZE + 2


def test_a_request_too_large_for_a_window_is_refused_with_it() -> None:
    loop = GroupLoop(Setting(groups=(FULL, window(40)), other_blocks=(5,)), seed=0)
    message = r"need 8 KV blocks of 16 for layers with window 40, and there are 4\. Lower max_tokens"
    with pytest.raises(RequestError, match=message):
        loop.add(Job(request_id="a", prompt=(1,) * 200))


def test_the_last_window_of_a_conversation_is_enough() -> None:
    """The window's first blocks were freed and overwritten; its last ones and all of the full group are there."""
    setting = Setting(groups=(FULL, window(20)), num_blocks=60, other_blocks=(8,), budget=32, depth=0)
    loop = GroupLoop(setting, seed=0)
    first = Job(request_id="a", prompt=tuple(index % 37 for index in range(200)), max_tokens=9)
    loop.run([first])
    loop.run([Job(request_id="b", prompt=(*first.prompt, *first.expected, 1), arrives=loop.num_turns)])
    assert loop.requests["b"].num_cached_tokens == 208
    (entry,) = [
        entry for plan in loop.plans for entry in plan.new_blocks if entry.group == 1 and entry.block_ids[0] == 0
    ]
    assert [block_id > 0 for block_id in entry.block_ids[:13]] == [False] * 11 + [True] * 2
    loop.run([Job(request_id="c", prompt=(*first.prompt[:100], 5, 6), arrives=loop.num_turns)])
    assert loop.requests["c"].num_cached_tokens == 0, "the window before token 100 is gone"


Patch = pytest.MonkeyPatch


def give_back_one_block_too_many(patch: Patch) -> None:
    release = KVBlocks.release_passed

    def early(self: KVBlocks, state: RequestState) -> None:
        state.num_computed_tokens += SIZE
        release(self, state)
        state.num_computed_tokens -= SIZE

    patch.setattr(KVBlocks, "release_passed", early)


def give_nothing_back(patch: Patch) -> None:
    patch.setattr(KVBlocks, "release_passed", lambda self, state: None)


def take_a_hit_without_its_window(patch: Patch) -> None:
    patch.setattr(PrefixCache, "_served_by_windows", lambda self, state, length: length)


def take_the_first_window_served_by_one_group(patch: Patch) -> None:
    served = PrefixCache._served_by_windows

    def once(self: PrefixCache, state: RequestState, length: int) -> int:
        groups, self._groups = self._groups, self._groups[:1]
        found = served(self, state, length)
        self._groups = groups
        return found

    patch.setattr(PrefixCache, "_served_by_windows", once)


LEAKS: list[tuple[Callable[[Patch], None], str, str]] = [
    (give_back_one_block_too_many, "full and window", "one in it was given back|was not the request"),
    (give_nothing_back, "full and window", "a block before the window is held"),
    (take_a_hit_without_its_window, "full and window", "is not published"),
    (take_the_first_window_served_by_one_group, "two windows", "is not published"),
]


@pytest.mark.parametrize(("leak", "name", "message"), LEAKS, ids=[leak.__name__ for leak, _, _ in LEAKS])
def test_leak_turns_the_simulations_red(
    leak: Callable[[Patch], None], name: str, message: str, monkeypatch: Patch
) -> None:
    leak(monkeypatch)
    with pytest.raises(AssertionError, match=message):
        simulate_many(name)


def test_first_needed_block_is_that_of_the_oldest_token_seen() -> None:
    for size, seen in ((16, 20), (16, 2), (8, 8), (16, 100)):
        group = window(seen, block_size=size)
        for index in range(300):
            assert group.first_needed_block(index) == max(0, index - seen + 1) // size
        firsts = [group.first_needed_block(index) for index in range(300)]
        assert all(later - earlier in (0, 1) for earlier, later in pairwise(firsts))
