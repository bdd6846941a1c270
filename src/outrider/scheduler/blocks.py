"""The pool of KV blocks: counts the references to each, and keeps free blocks that hold a reusable prefix.

Knows ids, reference counts and hashes; not what a hash means (`prefix.py`) nor where the memory is.
Block 0 is the null block: padding writes there, and it is never allocated.

    a block is   held (references > 0)
                 or free and blank         -> `_blank`
                 or free and published     -> `_reusable`, oldest first: the next to be overwritten
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

NULL_BLOCK = 0


class BlockPool:
    """Block ids 1 … num_blocks - 1 with reference counts."""

    def __init__(self, num_blocks: int) -> None:
        assert num_blocks >= 2, "a pool needs the null block and one more"
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._blank: deque[int] = deque(range(1, num_blocks))
        self._reusable: OrderedDict[int, None] = OrderedDict()

    @property
    def num_usable(self) -> int:
        """Blocks that can be held at once."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can return, published ones included."""
        return len(self._blank) + len(self._reusable)

    def is_free(self, block_id: int) -> bool:
        return self._references[block_id] == 0

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, one reference each: blank ones first, then the least recently used published ones."""
        assert 0 <= count <= self.num_free, f"{count} blocks asked, {self.num_free} free"
        taken = []
        for _ in range(count):
            if self._blank:
                block_id = self._blank.popleft()
            else:
                block_id, _ = self._reusable.popitem(last=False)
                del self._block_of[self._hash_of.pop(block_id)]
            self._references[block_id] = 1
            taken.append(block_id)
        return taken

    def share(self, block_id: int) -> None:
        """Add one reference to a published block."""
        assert block_id in self._hash_of, f"block {block_id} is not published"
        if self._references[block_id] == 0:
            del self._reusable[block_id]
        self._references[block_id] += 1

    def release(self, block_ids: Iterable[int]) -> None:
        """Drop one reference to each block. Blocks that become free are reused in the order of `block_ids`."""
        for block_id in block_ids:
            assert self._references[block_id] > 0, f"block {block_id} is not held"
            self._references[block_id] -= 1
            if self._references[block_id] == 0:
                if block_id in self._hash_of:
                    self._reusable[block_id] = None
                else:
                    self._blank.append(block_id)

    def publish(self, block_id: int, block_hash: bytes) -> None:
        """Let other requests find this held block. A second block with the same content stays private."""
        assert self._references[block_id] > 0, f"block {block_id} is not held"
        if block_hash in self._block_of or block_id in self._hash_of:
            return
        self._hash_of[block_id] = block_hash
        self._block_of[block_hash] = block_id

    def find(self, block_hash: bytes) -> int | None:
        """The published block with this content, or None."""
        return self._block_of.get(block_hash)
