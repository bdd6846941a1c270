"""The paged KV cache of a model: its shape, its size, its memory. Who owns which block is not known here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KVSpec:
    """Shape of the KV cache of one model."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    block_size: int
    """Tokens in one block."""

    @property
    def bytes_per_block(self) -> int:
        """Bytes of K and V of one block in all layers."""
        elements = self.num_layers * self.block_size * self.num_kv_heads * self.head_dim
        return 2 * elements * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class LayerKV:
    """K and V of one layer."""

    k: Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]
    v: Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]


class KVCache(Sequence[LayerKV]):
    """The memory of a KV cache, one `LayerKV` per layer. Block 0 is the null block: padding writes there."""

    def __init__(self, spec: KVSpec, num_blocks: int, *, device: torch.device) -> None:
        assert num_blocks >= 2, f"num_blocks={num_blocks}: block 0 is the null block, so one more is needed"
        self.spec = spec
        self.num_blocks = num_blocks
        shape = (num_blocks, spec.block_size, spec.num_kv_heads, spec.head_dim)
        self._layers = [
            LayerKV(*(torch.zeros(shape, dtype=spec.dtype, device=device) for _ in range(2)))
            for _ in range(spec.num_layers)
        ]

    @overload
    def __getitem__(self, index: int) -> LayerKV: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerKV]: ...
    def __getitem__(self, index: int | slice) -> LayerKV | list[LayerKV]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)
