"""RMSNorm in fp32: cast, then multiplied by the weight (Llama); or multiplied by the weight (OLMo) or by
1 + weight (Qwen3.5), then cast."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels.reference.linear import TILE, linear

_NARROW = 128
"""Widths up to this (heads) are summed by a tree: they come in many rows, for which products of 16 are slow."""


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False, casts_last: bool = False) -> Tensor:
    """x [..., K], weight [K] -> [..., K] = weight × cast(n), with n = x / sqrt(mean(x²) + eps).

    plus_one: cast((1 + weight) × n), all in fp32. casts_last: cast(weight × n), likewise.
    """
    width = x.shape[-1]
    rows = x.reshape(-1, width).float()
    factors = torch.rsqrt(row_sums(rows * rows).div_(width).add_(eps))
    if plus_one:
        return (rows * factors * (weight.float() + 1.0)).to(x.dtype).view(x.shape)
    if casts_last:
        return (rows * factors * weight.float()).to(x.dtype).view(x.shape)
    return ((rows * factors).to(x.dtype) * weight).view(x.shape)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False, casts_last: bool = False
) -> tuple[Tensor, Tensor]:
    """x, residual [M, K] -> (rms_norm(x + residual), x + residual)."""
    total = residual + x
    return rms_norm(total, weight, eps, plus_one=plus_one, casts_last=casts_last), total


def row_sums(x: Tensor) -> Tensor:
    """[M, K] -> [M, 1], contiguous; the order of summation is fixed by K alone.

    Wide rows: a product with ones, in the order of `linear`. Narrow ones: halves are added until one column is
    left, by elementwise adds, which round alike at every place.
    """
    width = x.shape[1]
    if width > _NARROW:
        return linear(x, x.new_ones(TILE, width))[:, :1].contiguous()
    power = 1 << (width - 1).bit_length()
    if power != width:
        x = pad(x, (0, power - width))
    while power > 1:
        power //= 2
        x = x[:, :power] + x[:, power:]
    return x
