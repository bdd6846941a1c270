"""Groups of layers whose KV lies in the same blocks: what the scheduler needs to know about a model's caches.

Layers of a group have the same window. Each group has its own pool of blocks, and each request has a list of blocks for
each group. Groups are addressed by their index in the model's order.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGroup:
    """A group of layers with the same window."""

    block_size: int
    """Number of tokens per block."""
    window: int | None = None
    """Number of tokens that a token of these layers sees, itself included; None: all before it."""

    def __post_init__(self) -> None:
        assert self.block_size > 0, f"block_size={self.block_size}"
        assert self.window is None or self.window > 1, f"window={self.window}: a token sees more than itself"

    def num_blocks(self, num_tokens: int) -> int:
        """Blocks that hold the first `num_tokens` tokens of a request."""
        return -(-num_tokens // self.block_size)

    def first_needed_block(self, index: int) -> int:
        """The first block that the token at `index`, or any token after it, may read."""
        if self.window is None:
            return 0
        return max(0, index + 1 - self.window) // self.block_size
