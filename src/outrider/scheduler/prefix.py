"""The prefix cache: finds the leading blocks of a request that are already computed.

A block is named by the hash of its tokens, of the content beside them (`core/content.py`) and of all before it. Only
blocks of confirmed tokens are published, target and drafter together: the drafter's KV at index j holds (feature of
j - 1, token j), so a block's drafter KV depends on no token behind the block, and the same name serves both.
"""

from array import array
from dataclasses import dataclass
from hashlib import sha256

from outrider.core.content import content_of_block
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.states import StateSlots


@dataclass(frozen=True, slots=True)
class Hit:
    """Leading blocks of a request that are published."""

    block_ids: list[int]
    num_tokens: int
    """Tokens in these blocks."""
    num_shared_tokens: int
    """Tokens whose blocks are published, for a hybrid also behind the last of them that has a snapshot at its end."""


NO_HIT = Hit([], 0, 0)


class PrefixCache:
    """Finds and publishes blocks of `pool`."""

    def __init__(self, pool: BlockPool, block_size: int, *, enabled: bool, states: StateSlots | None = None) -> None:
        """`states`: of a hybrid, whose requests also need a snapshot where they start."""
        self._pool = pool
        self._block_size = block_size
        self._enabled = enabled
        self._states = states
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0

    def _extend_hashes(self, state: RequestState, count: int) -> None:
        """Make sure the first `count` blocks of `state` are named."""
        hashes, size, content_keys = state.block_hashes, self._block_size, state.request.content_keys
        while len(hashes) < count:
            start = len(hashes) * size
            digest = sha256(hashes[-1] if hashes else b"")
            digest.update(array("q", state.token_ids[start : start + size]).tobytes())
            if content_keys:
                digest.update(content_of_block(content_keys, start, start + size))
            hashes.append(digest.digest())

    def match(self, state: RequestState) -> Hit:
        """The published blocks that the tokens begin with, always short of the last known token."""
        if not self._enabled:
            return NO_HIT
        most = (state.num_tokens - 1) // self._block_size
        self._extend_hashes(state, most)
        found: list[int] = []
        for block_hash in state.block_hashes[:most]:
            block_id = self._pool.find(block_hash)
            if block_id is None:
                break
            found.append(block_id)
        num_shared_tokens = len(found) * self._block_size
        if self._states is not None:
            while found and not self._states.has(state.block_hashes[len(found) - 1]):
                found.pop()
        return Hit(found, len(found) * self._block_size, num_shared_tokens)

    def state_slot(self, state: RequestState, hit: Hit) -> int:
        """The snapshot at the end of what `match` found, or -1 where none is needed."""
        if self._states is None or not hit.block_ids:
            return -1
        slot = self._states.find(state.block_hashes[len(hit.block_ids) - 1])
        assert slot is not None, "blocks were matched without a snapshot"
        return slot

    @property
    def has_states(self) -> bool:
        """True where snapshots of states are kept."""
        return self._enabled and self._states is not None

    def slot_for_state(self, state: RequestState, length: int, *, instead_of: int = 0) -> int | None:
        """A slot for a snapshot of `state` at `length` tokens; None where one is there, or no slot, or no end.

        instead_of: tokens at whose end `state` has an earlier one that it gives up; 0 where it has none.
        """
        if not self._enabled or self._states is None or length <= 0 or length % self._block_size:
            return None
        count = length // self._block_size
        self._extend_hashes(state, count)
        name = state.block_hashes[count - 1]
        if self._states.find(name) is not None:
            return None
        if instead_of:
            self._states.drop(state.block_hashes[instead_of // self._block_size - 1])
        return self._states.take(name)

    def count_lookup(self, state: RequestState, hit: Hit) -> None:
        """Count an admission's lookup for the statistics."""
        self.num_queried_tokens += state.num_tokens
        self.num_hit_tokens += hit.num_tokens

    def publish(self, state: RequestState) -> None:
        """Publish the full blocks of confirmed, computed tokens."""
        if not self._enabled:
            return
        count = min(state.num_computed_tokens, state.num_tokens) // self._block_size
        if count <= state.num_cached_blocks:
            return
        self._extend_hashes(state, count)
        for index in range(state.num_cached_blocks, count):
            self._pool.publish(state.block_ids[index], state.block_hashes[index])
        state.num_cached_blocks = count
