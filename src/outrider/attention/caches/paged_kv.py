"""Keys and values of one layer in blocks: the cache of ordinary attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.zeroed import zeroed


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer."""

    k: Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]
    v: Tensor  # [num_blocks, block_size, num_kv_heads, value_dim]
    group: int = 0  # index of the block table by which the blocks are found


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedKV(PagedSpec):
    """Shape of one layer's keys and values."""

    num_kv_heads: int
    head_dim: int
    """Width of a head of K."""
    value_dim: int
    """Width of a head of V."""
    dtype: torch.dtype

    def bytes_per_block(self, block_size: int) -> int:
        return block_size * self.num_kv_heads * (self.head_dim + self.value_dim) * self.dtype.itemsize

    def allocate(self, num_blocks: int, *, block_size: int, group: int, device: torch.device) -> LayerKV:
        assert num_blocks >= 2, f"num_blocks={num_blocks}: block 0 is the null block, so at least two are needed"
        k, v = (
            zeroed((num_blocks, block_size, self.num_kv_heads, size), dtype=self.dtype, device=device)
            for size in (self.head_dim, self.value_dim)
        )
        return LayerKV(k, v, group)
