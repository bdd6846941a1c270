"""The interface of paged caches: a window, the bytes of a block, and memory for a number of blocks.

A block holds `block_size` consecutive tokens of one request; block 0 is the null block, where padding writes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from outrider.core.kv_groups import BlockGroup


class PagedMemory(Protocol):
    """The memory of one layer."""

    @property
    def group(self) -> int:
        """Index of the group of layers that share a block table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedSpec(ABC):
    """Shape of one layer's cache. Layers with the same window form a group: they share a block table and a pool."""

    window: int | None = None
    """Number of tokens that a token of this layer sees, itself included; None: all before it."""

    @abstractmethod
    def bytes_per_block(self, block_size: int) -> int:
        """Bytes of one block of `block_size` tokens."""

    @abstractmethod
    def allocate(self, num_blocks: int, *, block_size: int, group: int, device: torch.device) -> PagedMemory:
        """Memory for `num_blocks` blocks, the null block included."""


def groups_of(specs: Iterable[PagedSpec], *, block_size: int) -> tuple[BlockGroup, ...]:
    """The groups that these layers form: that of window None first, then the longest; at least one group."""
    windows = {spec.window for spec in specs} or {None}
    in_order = sorted(windows, key=lambda window: float("-inf") if window is None else -window)
    return tuple(BlockGroup(block_size=block_size, window=window) for window in in_order)
