"""Rotary position embedding on halves (NeoX order)."""

import torch
from torch import Tensor


def rotary(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    """x [M, H, D], positions [M] int64, cos_sin [P, R], R <= D -> [M, H, D].

    cos_sin[p] = cos of R/2 angles, then sin of them. With x = [x1 | x2 | rest], x1 and x2 of width R/2:
    [x1 cos - x2 sin | x2 cos + x1 sin | rest].
    """
    width = cos_sin.shape[1]
    half = width // 2
    at_positions = cos_sin.index_select(0, positions).to(x.dtype).unsqueeze(1)  # [M, 1, R]
    cos, sin = at_positions[..., :half], at_positions[..., half:]
    first, second = x[..., :half], x[..., half:width]
    pieces = [first * cos - second * sin, second * cos + first * sin]
    if width < x.shape[-1]:
        pieces.append(x[..., width:])
    return torch.cat(pieces, dim=-1)
