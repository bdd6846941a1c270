"""Latent rows of one layer in blocks: the cache of latent attention.

A row holds everything that all heads of a token's keys and values are made from: the normalised latent part, then the
rotated part. 512 + 64 numbers in the released models, where keys and values of 128 heads would be 40960.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.zeroed import zeroed


@dataclass(frozen=True, slots=True)
class LayerLatent:
    """The rows of one layer."""

    rows: Tensor  # [num_blocks, block_size, rank + rope_size], the latent part first
    group: int = 0  # index of the block table by which the blocks are found


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent(PagedSpec):
    """Shape of one layer's rows."""

    rank: int
    """Width of the latent part, which is also the width of what a head attends to."""
    rope_size: int
    """Width of the rotated part."""
    dtype: torch.dtype

    def bytes_per_block(self, block_size: int) -> int:
        return block_size * (self.rank + self.rope_size) * self.dtype.itemsize

    def allocate(self, num_blocks: int, *, block_size: int, group: int, device: torch.device) -> LayerLatent:
        assert num_blocks >= 2, f"num_blocks={num_blocks}: block 0 is the null block, so at least two are needed"
        shape = (num_blocks, block_size, self.rank + self.rope_size)
        return LayerLatent(zeroed(shape, dtype=self.dtype, device=device), group)
