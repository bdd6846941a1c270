"""y = x Wᵀ + b, by products of exactly 16 rows."""

import torch
from torch import Tensor

TILE = 16
"""Rows of one matrix product. The library may choose another order of summation for another number."""

_ALIGNMENT = 64
"""Bytes; the order of summation may depend on the alignment of a tile."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K], weight [N, K], bias [N], one dtype -> [M, N]."""
    num_tokens, width = x.shape
    assert weight.shape[1] == width, f"x {tuple(x.shape)} does not fit weight {tuple(weight.shape)}"
    num_padded = -(-num_tokens // TILE) * TILE
    if num_padded != num_tokens or not x.is_contiguous() or x.data_ptr() % _ALIGNMENT:
        padded = x.new_zeros(num_padded, width)
        padded[:num_tokens] = x
        x = padded
    out = x.new_empty(num_padded, weight.shape[0])
    transposed = weight.t()
    for x_tile, out_tile in zip(x.split(TILE), out.split(TILE), strict=True):
        torch.mm(x_tile, transposed, out=out_tile)
    out = out[:num_tokens]
    return out if bias is None else out.add_(bias)
