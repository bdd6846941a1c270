"""Which leading blocks of a request are already computed.

A block is named by the hash of its tokens and of all before it. Only blocks of confirmed tokens are published,
target and drafter together: the drafter's KV at index j holds (feature of j - 1, token j), so a block's drafter
KV depends on no token behind the block, and the same name serves both.
"""

from array import array
from hashlib import sha256

from outrider.core.request import Request
from outrider.scheduler.blocks import BlockPool
from outrider.scheduler.states import StateSlots


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

    def _extend_hashes(self, request: Request, count: int) -> None:
        """Make sure the first `count` blocks of `request` are named."""
        hashes, size = request.block_hashes, self._block_size
        while len(hashes) < count:
            start = len(hashes) * size
            digest = sha256(hashes[-1] if hashes else b"")
            digest.update(array("q", request.token_ids[start : start + size]).tobytes())
            hashes.append(digest.digest())

    def match(self, request: Request) -> list[int]:
        """The published blocks that start `request`, always short of its last known token."""
        if not self._enabled:
            return []
        most = (request.num_tokens - 1) // self._block_size
        self._extend_hashes(request, most)
        found: list[int] = []
        for block_hash in request.block_hashes[:most]:
            block_id = self._pool.find(block_hash)
            if block_id is None:
                break
            found.append(block_id)
        request.num_shared_tokens = len(found) * self._block_size
        if self._states is not None:
            while found and not self._states.has(request.block_hashes[len(found) - 1]):
                found.pop()
        return found

    def state_slot(self, request: Request, num_blocks: int) -> int:
        """The snapshot at the end of the first blocks that `match` found, or -1 where none is needed."""
        if self._states is None or num_blocks == 0:
            return -1
        slot = self._states.find(request.block_hashes[num_blocks - 1])
        assert slot is not None, "blocks were matched without a snapshot"
        return slot

    @property
    def has_states(self) -> bool:
        """True where snapshots of states are kept."""
        return self._enabled and self._states is not None

    def slot_for_state(self, request: Request, length: int, *, instead_of: int = 0) -> int | None:
        """A slot for a snapshot of `request` at `length` tokens; None where one is there, or no slot, or no end.

        instead_of: tokens at whose end `request` has an earlier one that it gives up; 0 where it has none.
        """
        if not self._enabled or self._states is None or length <= 0 or length % self._block_size:
            return None
        count = length // self._block_size
        self._extend_hashes(request, count)
        name = request.block_hashes[count - 1]
        if self._states.find(name) is not None:
            return None
        if instead_of:
            self._states.drop(request.block_hashes[instead_of // self._block_size - 1])
        return self._states.take(name)

    def count_lookup(self, request: Request, num_hit_blocks: int) -> None:
        """Count an admission's lookup for the statistics."""
        self.num_queried_tokens += request.num_tokens
        self.num_hit_tokens += num_hit_blocks * self._block_size

    def publish(self, request: Request) -> None:
        """Publish the full blocks of confirmed, computed tokens."""
        if not self._enabled:
            return
        count = min(request.num_computed_tokens, request.num_tokens) // self._block_size
        if count <= request.num_cached_blocks:
            return
        self._extend_hashes(request, count)
        for index in range(request.num_cached_blocks, count):
            self._pool.publish(request.block_ids[index], request.block_hashes[index])
        request.num_cached_blocks = count
