"""Rotary position embedding on halves (NeoX order)."""

import torch
from torch import Tensor


def rotary(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    """x [M, H, D], positions [M] int64, cos_sin [P, R], R <= D -> [M, H, D].

    cos_sin[p] = cos of R/2 angles, then sin of them. With x = [x1 | x2 | rest], x1 and x2 of width R/2:
    [x1 cos - x2 sin | x2 cos + x1 sin | rest].
    """
    return turned(x, *cos_and_sin(cos_sin, positions, x.dtype))


def cos_and_sin(cos_sin: Tensor, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos_sin [P, R], positions [M] int64 -> the cosines and the sines at them, [M, 1, R/2] each."""
    cos, sin = cos_sin.index_select(0, positions).to(dtype).unsqueeze(1).chunk(2, dim=-1)
    return cos, sin


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [M, H, D], cos and sin [M, 1, R/2] -> [M, H, D], as `rotary` gives it."""
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    pieces = [first * cos - second * sin, second * cos + first * sin]
    if 2 * half < x.shape[-1]:
        pieces.append(x[..., 2 * half :])
    return torch.cat(pieces, dim=-1)
