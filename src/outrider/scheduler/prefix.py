"""The prefix cache: finds the leading blocks of a request that are already computed.

The name of a block is the hash of its tokens, of the content beside them (`core/content.py`) and of all before it.
Only blocks of confirmed tokens are published, target and drafter together: the drafter's KV at index j holds (feature
of j - 1, token j), so a block's drafter KV depends on no token after the block, and one name serves both.

A hit is as long as every group of layers can serve: a group without a window needs all blocks before its end, a group
with a window needs the blocks that the next token reads.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import gcd, lcm

from outrider.core.content import content_of_block
from outrider.core.kv_groups import BlockGroup
from outrider.scheduler.blocks import NULL_BLOCK, BlockPool
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.snapshot_index import SnapshotIndex


@dataclass(frozen=True, slots=True)
class Hit:
    """Leading tokens of a request whose KV is published."""

    num_tokens: int
    block_ids: list[list[int]]
    """For each group, the blocks of these tokens; the null block in place of those before the window."""
    num_shared_tokens: int
    """Tokens whose blocks are published; for a hybrid, more than `num_tokens` if there is no snapshot at their end."""


class PrefixCache:
    """Finds and publishes blocks of `pools`."""

    def __init__(
        self,
        pools: Sequence[BlockPool],
        groups: Sequence[BlockGroup],
        *,
        enabled: bool,
        snapshots: SnapshotIndex | None = None,
    ) -> None:
        """`snapshots`: index of a hybrid model's snapshots; its requests also need a snapshot where they start."""
        sizes = [group.block_size for group in groups]
        self.unit = lcm(*sizes)
        """Hits and snapshots hold a multiple of this number of tokens: every group has a block that ends there."""
        self._hash_size = gcd(*sizes)  # tokens of one hash; the last hash in a block is the name of the block
        self._groups = [(pool, group, group.block_size) for pool, group in zip(pools, groups, strict=True)]
        self._enabled = enabled
        self._snapshots = snapshots
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0

    def _extend_hashes(self, state: RequestState, num_tokens: int) -> None:
        """Compute the names of the blocks of the first `num_tokens` tokens that have none yet."""
        hashes, size, content_keys = state.block_hashes, self._hash_size, state.request.content_keys
        while len(hashes) < num_tokens // size:
            start = len(hashes) * size
            digest = sha256(hashes[-1] if hashes else b"")
            digest.update(array("q", state.token_ids[start : start + size]).tobytes())
            if content_keys:
                digest.update(content_of_block(content_keys, start, start + size))
            hashes.append(digest.digest())

    def _name(self, state: RequestState, end: int) -> bytes:
        """The name of the block, or snapshot, that ends after the first `end` tokens."""
        return state.block_hashes[end // self._hash_size - 1]

    def no_hit(self) -> Hit:
        """An empty hit: nothing is found, or the cache may not be used."""
        return Hit(0, [[] for _ in self._groups], 0)

    def match(self, state: RequestState) -> Hit:
        """The longest hit; it never includes the last known token."""
        if not self._enabled:
            return self.no_hit()
        length = (state.num_tokens - 1) // self.unit * self.unit
        self._extend_hashes(state, length)
        whole: dict[int, list[int]] = {}  # blocks from the first token on, of groups without a window
        for index, (pool, group, size) in enumerate(self._groups):
            if group.window is None:
                whole[index] = self._leading_blocks(state, pool, size=size, num_tokens=length)
                length = len(whole[index]) * size // self.unit * self.unit
        length = num_shared_tokens = self._served_by_windows(state, length)
        if self._snapshots is not None:
            while length and not self._snapshots.has(self._name(state, length)):
                length = self._served_by_windows(state, length - self.unit)
        block_ids = [
            whole[index][: length // size]
            if group.window is None
            else self._window_blocks(state, pool, group, num_tokens=length)
            for index, (pool, group, size) in enumerate(self._groups)
        ]
        return Hit(length, block_ids, num_shared_tokens)

    def _leading_blocks(self, state: RequestState, pool: BlockPool, *, size: int, num_tokens: int) -> list[int]:
        found: list[int] = []
        step = size // self._hash_size
        for name in state.block_hashes[step - 1 : num_tokens // self._hash_size : step]:
            block_id = pool.find(name)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def _served_by_windows(self, state: RequestState, length: int) -> int:
        """The longest hit up to `length` for which every window group has the blocks that the next token reads."""
        is_served = False
        while length and not is_served:
            is_served = True
            for pool, group, size in self._groups:
                if group.window is None:
                    continue
                for index in reversed(range(group.first_needed_block(length), length // size)):
                    if pool.find(self._name(state, (index + 1) * size)) is None:
                        length, is_served = index * size // self.unit * self.unit, False  # it is in each window between
                        break
        return length

    def _window_blocks(self, state: RequestState, pool: BlockPool, group: BlockGroup, *, num_tokens: int) -> list[int]:
        size, found = group.block_size, []
        first, end = group.first_needed_block(num_tokens), num_tokens // group.block_size
        for index in range(first, end):
            block_id = pool.find(self._name(state, (index + 1) * size))
            assert block_id is not None, f"block {index} of a hit is not published"
            found.append(block_id)
        return [NULL_BLOCK] * (end - len(found)) + found

    def find_snapshot(self, state: RequestState, hit: Hit) -> int:
        """Id of the snapshot at the end of a hit of `match`, or -1 if none is needed."""
        if self._snapshots is None or not hit.num_tokens:
            return -1
        snapshot_id = self._snapshots.find(self._name(state, hit.num_tokens))
        assert snapshot_id is not None, "blocks were matched without a snapshot"
        return snapshot_id

    @property
    def has_snapshots(self) -> bool:
        """True if snapshots of states are kept."""
        return self._enabled and self._snapshots is not None

    def new_snapshot(self, state: RequestState, length: int, *, instead_of: int = 0) -> int | None:
        """An id for a new snapshot after the first `length` tokens. None if that snapshot exists, if there is no memory
        for one, or if no block ends there.

        instead_of: length of an earlier snapshot of this request, which the new one replaces; 0 if there is none.
        """
        if not self._enabled or self._snapshots is None or length <= 0 or length % self.unit:
            return None
        self._extend_hashes(state, length)
        name = self._name(state, length)
        if self._snapshots.find(name) is not None:
            return None
        if instead_of:
            self._snapshots.drop(self._name(state, instead_of))
        return self._snapshots.take(name)

    def count_lookup(self, state: RequestState, hit: Hit) -> None:
        """Count an admission's lookup for the statistics."""
        self.num_queried_tokens += state.num_tokens
        self.num_hit_tokens += hit.num_tokens

    def publish(self, state: RequestState) -> None:
        """Publish the full blocks of confirmed, computed tokens."""
        if not self._enabled:
            return
        before, size = state.num_published_tokens, self._hash_size
        end = min(state.num_computed_tokens, len(state.token_ids)) // size * size
        if end <= before:
            return
        self._extend_hashes(state, end)
        for (pool, _, size), held in zip(self._groups, state.blocks, strict=True):
            for index in range(before // size, end // size):
                pool.publish(held.ids[index], self._name(state, (index + 1) * size))
        state.num_published_tokens = end
