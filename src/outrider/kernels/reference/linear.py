"""y = x Wᵀ + b, by products of exactly 16 rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TILE = 16
"""Rows of one matrix product. The library may choose another order of summation for another number."""

_FEW, _RIGHT = 11, (1, 2, 3, 4, 8)
"""Numbers of columns up to which a product of 16 rows may treat them differently, and those at which it does not."""
_ALIGNMENT = 64
"""Bytes; the order of summation may depend on the alignment of a tile."""


def empty_weight(output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[output_size, input_size], stored by columns, each at an aligned place, with zeros behind the last one.

    Products of 16 rows were 1.2 to 2 times as fast as with rows of weights in memory (one core, AVX-512, fp32).
    """
    padded = -(-output_size // TILE) * TILE
    columns = torch.empty(input_size, padded, dtype=dtype, device=device)
    columns[:, output_size:] = 0
    return columns[:, :output_size].t()


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
    columns = columns_of(weight)
    if num_padded == TILE:
        out = torch.mm(x, columns)
    else:
        out = x.new_empty(num_padded, columns.shape[1])
        for start in range(0, num_padded, TILE):
            torch.mm(x[start : start + TILE], columns, out=out[start : start + TILE])
    if num_padded != num_tokens or columns.shape[1] != weight.shape[0]:
        out = out[:num_tokens, : weight.shape[0]].contiguous()
    return out if bias is None else out.add_(bias)


def columns_of(weight: Tensor) -> Tensor:
    """weight [N, K] -> [K, N or more] for a product of 16 rows, all of which are summed in the same order; the columns
    from N on are of no use.

    Without AVX-512 the library sums some of 16 rows in another order than the rest (MKL 2024.2 on AVX2): with 5, 6, 7,
    9, 10 or 11 columns, and with 2 to 11 where the weights are stored by rows. Stored by columns, 8 and 12 are right.
    """
    size, width = weight.shape
    row, column = weight.stride()
    if size > _FEW or (row == 1 and size in _RIGHT):
        return weight.t()
    padded = size if size in _RIGHT else 8 if size < 8 else 12
    end = weight.storage_offset() + (width - 1) * column + padded
    if row == 1 and column >= padded and end * weight.itemsize <= weight.untyped_storage().nbytes():
        return weight.as_strided((width, padded), (column, 1))
    columns = weight.new_zeros(width, padded)
    columns[:, :size] = weight.t()
    return columns


def linear_compilations(dtype: torch.dtype, device: torch.device) -> Sequence[Callable[[], object]]:
    """PyTorch's matrix products are compiled already."""
    return ()
