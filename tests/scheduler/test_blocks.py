"""The block pool against a model of lists and dicts, operation by operation."""

import random
from collections.abc import Callable

import pytest

from outrider.scheduler.blocks import NULL_BLOCK, BlockPool


class ModelPool:
    """A pool in obvious code: holders are lists, and free blocks carry the time of their release."""

    def __init__(self, num_blocks: int) -> None:
        self.block_ids = range(1, num_blocks)
        self.holders: list[list[int]] = []
        self.published: dict[bytes, int] = {}
        self.freed_at = {block_id: block_id - num_blocks for block_id in self.block_ids}
        self.now = 0

    def is_held(self, block_id: int) -> bool:
        return any(block_id in holder for holder in self.holders)

    def free(self) -> list[int]:
        """Free blocks in the order in which they are to be given out: blank before published, oldest first."""
        return sorted(
            (block_id for block_id in self.block_ids if not self.is_held(block_id)),
            key=lambda block_id: (block_id in self.published.values(), self.freed_at[block_id]),
        )

    def allocate(self, count: int) -> list[int]:
        taken = self.free()[:count]
        self.published = {name: block_id for name, block_id in self.published.items() if block_id not in taken}
        self.holders.append(taken)
        return list(taken)

    def leave(self, holder: list[int]) -> list[int]:
        """Release a holder's blocks, last first."""
        self.holders = [other for other in self.holders if other is not holder]
        for block_id in reversed(holder):
            if not self.is_held(block_id):
                self.now += 1
                self.freed_at[block_id] = self.now
        return list(reversed(holder))


def run_operations(seed: int, num_operations: int) -> None:
    rng = random.Random(seed)
    num_blocks = rng.randrange(2, 14)
    pool, model = BlockPool(num_blocks), ModelPool(num_blocks)
    names = [bytes([index]) for index in range(10)]

    def allocate() -> None:
        count = rng.randrange(len(model.free()) + 1)
        assert pool.allocate(count) == model.allocate(count)

    def share() -> None:
        if model.published and model.holders:
            block_id = model.published[rng.choice(sorted(model.published))]
            holder = rng.choice(model.holders)
            if block_id not in holder:
                pool.share(block_id)
                holder.append(block_id)

    def leave() -> None:
        if model.holders:
            pool.release(model.leave(rng.choice(model.holders)))

    def publish() -> None:
        held = [block_id for holder in model.holders for block_id in holder]
        if held:
            block_id, name = rng.choice(held), rng.choice(names)
            pool.publish(block_id, name)
            if name not in model.published and block_id not in model.published.values():
                model.published[name] = block_id

    operations: list[Callable[[], None]] = [allocate, share, leave, publish, publish]
    for _ in range(num_operations):
        rng.choice(operations)()
        assert pool.num_usable == num_blocks - 1
        assert pool.num_free == len(model.free()), "a block is lost, or counted twice"
        for block_id in model.block_ids:
            assert pool.is_free(block_id) != model.is_held(block_id)
        for name in names:
            assert pool.find(name) == model.published.get(name)
        assert all(NULL_BLOCK not in holder for holder in model.holders)


def test_pool_equals_a_model_of_lists_after_every_operation() -> None:
    for seed in range(150):
        try:
            run_operations(seed, 60)
        except AssertionError as error:
            error.add_note(f"seed={seed}")
            raise


def test_null_block_is_never_given_out() -> None:
    pool = BlockPool(5)
    assert sorted(pool.allocate(pool.num_free)) == [1, 2, 3, 4]
    assert pool.num_free == 0


def test_blank_blocks_are_taken_before_published_ones_and_old_ones_first() -> None:
    pool = BlockPool(5)
    first, second, third, blank = pool.allocate(4)
    for block_id in (first, second, third):
        pool.publish(block_id, bytes([block_id]))
    pool.release([second, blank, first, third])
    assert pool.allocate(4) == [blank, second, first, third]
    assert [pool.find(bytes([block_id])) for block_id in (first, second, third)] == [None] * 3


def test_block_that_is_shared_again_is_no_longer_the_oldest() -> None:
    pool = BlockPool(3)
    old, new = pool.allocate(2)
    pool.publish(old, b"old")
    pool.publish(new, b"new")
    pool.release([old, new])
    pool.share(old)
    pool.release([old])
    assert pool.allocate(1) == [new]


def test_shared_block_is_free_only_when_its_last_holder_leaves() -> None:
    pool = BlockPool(3)
    (block_id,) = pool.allocate(1)
    pool.publish(block_id, b"name")
    pool.share(block_id)
    pool.release([block_id])
    assert not pool.is_free(block_id)
    pool.release([block_id])
    assert pool.is_free(block_id)


def test_second_block_with_the_same_content_stays_private() -> None:
    pool = BlockPool(3)
    first, second = pool.allocate(2)
    pool.publish(first, b"name")
    pool.publish(second, b"name")
    assert pool.find(b"name") == first
    pool.release([second])
    assert pool.allocate(1) == [second], "a private copy is blank once it is free"


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda pool: pool.allocate(pool.num_free + 1), "3 blocks asked, 2 free"),
        (lambda pool: pool.release([2]), "block 2 is not held"),
        (lambda pool: pool.share(1), "block 1 is not published"),
        (lambda pool: pool.publish(2, b"name"), "block 2 is not held"),
    ],
    ids=["too many", "free twice", "share a private block", "publish a free block"],
)
def test_misuse_is_an_assertion(misuse: Callable[[BlockPool], None], message: str) -> None:
    pool = BlockPool(4)
    assert pool.allocate(1) == [1]
    with pytest.raises(AssertionError, match=message):
        misuse(pool)
