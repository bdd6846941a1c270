"""y = x Wᵀ + b, by products of exactly 16 rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TILE = 16
"""Rows of one matrix product. The library may choose another order of summation for another number."""

_ALIGNMENT = 64
"""Bytes; the order of summation may depend on the alignment of a tile."""


def empty_weight(output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[output_size, input_size], stored by columns, each at an aligned place.

    Products of 16 rows were 1.2 to 2 times as fast as with rows of weights in memory (one core, AVX-512, fp32).
    """
    padded = -(-output_size // TILE) * TILE
    return torch.empty(input_size, padded, dtype=dtype, device=device)[:, :output_size].t()


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    whole_shape: tuple[int, int] | None = None,
) -> Tensor:
    """x [M, K], weight [N, K] in any layout, bias [N], one dtype -> [M, N] in that dtype or in out_dtype.

    whole_shape: (N, K) of the whole layer; a shard of its rows cannot be computed here, because the library's order of
    summation may follow the number of rows.
    """
    assert whole_shape in (None, tuple(weight.shape)), f"a shard {tuple(weight.shape)} of a layer {whole_shape}"
    num_tokens, width = x.shape
    assert weight.shape[1] == width, f"x {tuple(x.shape)} does not fit weight {tuple(weight.shape)}"
    if out_dtype is not None:
        x, weight = x.to(out_dtype), weight.to(out_dtype)
    num_padded = -(-num_tokens // TILE) * TILE
    if num_padded != num_tokens or not x.is_contiguous() or x.data_ptr() % _ALIGNMENT:
        padded = x.new_zeros(num_padded, width)
        padded[:num_tokens] = x
        x = padded
    transposed = weight.t()
    if num_padded == TILE:
        out = torch.mm(x, transposed)
    else:
        out = x.new_empty(num_padded, weight.shape[0])
        for start in range(0, num_padded, TILE):
            torch.mm(x[start : start + TILE], transposed, out=out[start : start + TILE])
    if num_padded != num_tokens:
        out = out[:num_tokens]
    return out if bias is None else out.add_(bias)


def linear_compilations(dtype: torch.dtype, device: torch.device) -> Sequence[Callable[[], object]]:
    """PyTorch's matrix products are compiled already."""
    return ()
