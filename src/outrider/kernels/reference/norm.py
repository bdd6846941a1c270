"""RMSNorm in Llama's flavour: normalise in fp32, cast to the input's dtype, then multiply by the weight."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def tree_sum(x: Tensor) -> Tensor:
    """[..., K] -> [..., 1]: halves added until one is left, K zero-padded to a power of two.

    Only elementwise adds, which are rounded alike at every place, so the order of summation is fixed by K alone.
    """
    width = x.shape[-1]
    full = 1 << (width - 1).bit_length()
    if full != width:
        x = pad(x, (0, full - width))
    while full > 1:
        full //= 2
        x = x[..., :full] + x[..., full:]
    return x


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., K], weight [K] -> [..., K] = weight × cast(x / sqrt(mean(x²) + eps))."""
    wide = x.float()
    variance = tree_sum(wide * wide).div_(x.shape[-1]).add_(eps)
    return (wide * torch.rsqrt(variance)).to(x.dtype) * weight


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x, residual [M, K] -> (rms_norm(x + residual), x + residual)."""
    total = residual + x
    return rms_norm(total, weight, eps), total
