"""y = x Wᵀ + b for the rows of whole texts: all products of 16 rows in one batched call."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels.reference.linear import TILE, columns_of

_LEAST_TILES = 2
"""A batch of one product may be cut along K among threads; in a batch of more, each is summed by one thread."""


def text_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    whole_shape: tuple[int, int] | None = None,
) -> Tensor:
    """x [M, K], weight [N, K] in any layout, bias [N], one dtype -> [M, N] in that dtype or in out_dtype.

    whole_shape: (N, K) of the whole layer; a shard of its rows cannot be computed here.

    Threads share the products instead of the inside of each, which is up to four times as fast on two cores as
    `linear`. The number of products does not change the bits of one.
    """
    assert whole_shape in (None, tuple(weight.shape)), f"a shard {tuple(weight.shape)} of a layer {whole_shape}"
    num_tokens, width = x.shape
    assert weight.shape[1] == width, f"x {tuple(x.shape)} does not fit weight {tuple(weight.shape)}"
    if out_dtype is not None:
        x, weight = x.to(out_dtype), weight.to(out_dtype)
    num_tiles = max(_LEAST_TILES, -(-num_tokens // TILE))
    tiles = pad(x, (0, 0, 0, num_tiles * TILE - num_tokens)).view(num_tiles, TILE, width)
    out = torch.bmm(tiles, columns_of(weight).expand(num_tiles, -1, -1)).view(num_tiles * TILE, -1)
    out = out[:num_tokens, : weight.shape[0]].contiguous()
    return out if bias is None else out.add_(bias)
