"""The blocks of running requests: one list for each group of layers, from the group's pool.

A group without a window keeps the blocks of all tokens, and reserves those of the whole prompt at admission. A group
with a window keeps the blocks that a later token may still read: it frees the blocks before them while the request
runs, and reserves the blocks ahead one step at a time. Knows no hashes (`prefix.py`) and does not choose which request
to preempt.

    group with a window:  | freed      | window ... | computed up to here | this step, lookahead |
                          0 (null block)            num_computed_tokens    reserved
"""

from collections.abc import Sequence

from outrider.core.errors import RequestError
from outrider.core.kv_groups import BlockGroup
from outrider.core.request import Request
from outrider.scheduler.blocks import NULL_BLOCK, BlockPool
from outrider.scheduler.prefix import Hit
from outrider.scheduler.request_state import BlockList, RequestState


class KVBlocks:
    """All pools of one engine."""

    def __init__(self, groups: Sequence[BlockGroup], num_blocks: Sequence[int], *, most_ahead: int) -> None:
        """`num_blocks`: blocks of each group's pool, the null block included.
        `most_ahead`: most tokens after the computed ones that a step needs blocks for, when no other is in flight."""
        self.groups = tuple(groups)
        self.pools = tuple(BlockPool(count) for count in num_blocks)
        assert len(self.groups) == len(self.pools) > 0, f"{len(self.groups)} groups and {len(self.pools)} pools"
        self._most_ahead = most_ahead
        self._windows = [(index, group) for index, group in enumerate(self.groups) if group.window is not None]

    @property
    def num_usable(self) -> int:
        """Blocks that can be held at once, in all groups."""
        return sum(pool.num_usable for pool in self.pools)

    @property
    def num_used(self) -> int:
        """Blocks that requests hold, in all groups."""
        return sum(pool.num_usable - pool.num_free for pool in self.pools)

    def check(self, request: Request) -> None:
        """Raises RequestError for a request that does not fit even if it runs alone."""
        for group, pool in zip(self.groups, self.pools, strict=True):
            needed = self.most_blocks(group, request.max_total_tokens)
            if needed > pool.num_usable:
                layers = f" for layers with window {group.window}" if group.window is not None else ""
                raise RequestError(
                    f"request {request.request_id}: {request.max_total_tokens} tokens (prompt and max_tokens) need "
                    f"{needed} KV blocks of {group.block_size}{layers}, and there are {pool.num_usable}. "
                    "Lower max_tokens, shorten the prompt, or give the engine more blocks."
                )

    def most_blocks(self, group: BlockGroup, max_total_tokens: int) -> int:
        """Blocks with which a request can always continue once none of its steps is in flight."""
        whole = group.num_blocks(max_total_tokens)
        if group.window is None:
            return whole
        num_tokens = group.window - 1 + self._most_ahead  # they may begin at any token of a block
        return min(whole, (num_tokens - 2) // group.block_size + 2)

    def admit(self, state: RequestState, hit: Hit, num_tokens: int) -> bool:
        """Give a request the blocks of its hit and fresh ones up to `num_tokens`; with a window, for one step.

        Returns False, and allocates nothing, if too few are free.
        """
        counts = []
        for group, pool, cached in zip(self.groups, self.pools, hit.block_ids, strict=True):
            reach = num_tokens if group.window is None else min(num_tokens, hit.num_tokens + self._most_ahead)
            count = group.num_blocks(reach) - len(cached)
            num_revived = sum(block_id != NULL_BLOCK and pool.is_free(block_id) for block_id in cached)
            if count > pool.num_free - num_revived:
                return False
            counts.append(count)
        state.blocks = []
        for pool, cached, count in zip(self.pools, hit.block_ids, counts, strict=True):
            num_released = 0
            for block_id in cached:
                if block_id == NULL_BLOCK:
                    num_released += 1
                else:
                    pool.share(block_id)
            state.blocks.append(BlockList([*cached, *pool.allocate(count)], num_released))
        self._count_reserved(state)
        return True

    def has_free(self, state: RequestState, num_tokens: int) -> bool:
        """True if `reserve` can allocate the blocks."""
        return all(
            group.num_blocks(num_tokens) - len(held.ids) <= pool.num_free
            for group, pool, held in zip(self.groups, self.pools, state.blocks, strict=True)
        )

    def reserve(self, state: RequestState, num_tokens: int) -> None:
        """Allocate the blocks that a running request lacks for its first `num_tokens` tokens."""
        for group, pool, held in zip(self.groups, self.pools, state.blocks, strict=True):
            count = group.num_blocks(num_tokens) - len(held.ids)
            if count > 0:
                held.ids.extend(pool.allocate(count))
        self._count_reserved(state)

    def _count_reserved(self, state: RequestState) -> None:
        state.num_reserved_tokens = min(
            len(held.ids) * group.block_size for group, held in zip(self.groups, state.blocks, strict=True)
        )

    def release_passed(self, state: RequestState) -> None:
        """Free the blocks that no later token of the request will read.

        Computed tokens are confirmed: every step in flight and every later one begins after them.
        """
        for index, group in self._windows:
            held, first = state.blocks[index], group.first_needed_block(state.num_computed_tokens)
            if first > held.num_released:
                self.pools[index].release(held.ids[held.num_released : first])
                held.ids[held.num_released : first] = [NULL_BLOCK] * (first - held.num_released)
                held.num_released = first

    @property
    def has_windows(self) -> bool:
        """True if a group has a window, so that `release_passed` can free blocks."""
        return bool(self._windows)

    def release(self, state: RequestState) -> None:
        """Free all blocks of a request; the last of them are reused first."""
        for pool, held in zip(self.pools, state.blocks, strict=False):
            pool.release(reversed(held.ids[held.num_released :]))
        state.blocks = []
        state.num_reserved_tokens = 0
