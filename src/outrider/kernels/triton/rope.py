"""Rotary position embedding on halves (NeoX order), on a GPU.

Every product and every sum is rounded to the dtype of the heads, as plain PyTorch does. A compiler that sees a rounded
product narrows it to bf16 and joins it with the sum to an fma, which rounds once; `product` forbids that.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, product, wait
from outrider.kernels.triton.launch import OVERLAPPED


def rotary(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    """x [M, H, D], positions [M] int64, cos_sin [P, R], R <= D -> [M, H, D].

    cos_sin[p] = cos of R/2 angles, then sin of them. With x = [x1 | x2 | rest], x1 and x2 of width R/2:
    [x1 cos - x2 sin | x2 cos + x1 sin | rest].
    """
    num_tokens, num_heads, head_dim = x.shape
    width = cos_sin.shape[1]
    assert x.stride(2) == 1 and cos_sin.is_contiguous(), "heads and angles are contiguous"
    assert width % 2 == 0 and width <= head_dim, f"{width} angles for heads of {head_dim}"
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        _rotary_kernel[(num_tokens,)](
            x,
            positions,
            cos_sin,
            out,
            x.stride(0),
            x.stride(1),
            HEADS=num_heads,
            D=head_dim,
            HALF=width // 2,
            BLOCK_HEADS=triton.next_power_of_2(num_heads),
            BLOCK_HALF=triton.next_power_of_2(width // 2),
            BLOCK_REST=triton.next_power_of_2(max(1, head_dim - width)),
            num_warps=4,
            **OVERLAPPED,
        )
    return out


@triton.jit
def rotate(b_first, b_second, b_cos, b_sin):
    """Both halves, rotated; each operation is rounded to their dtype."""
    dtype: tl.constexpr = b_first.dtype
    b_first, b_second = b_first.to(tl.float32), b_second.to(tl.float32)
    b_cos, b_sin = b_cos.to(dtype).to(tl.float32), b_sin.to(dtype).to(tl.float32)
    b_low = _rounded(b_first, b_cos, dtype) - _rounded(b_second, b_sin, dtype)
    b_high = _rounded(b_second, b_cos, dtype) + _rounded(b_first, b_sin, dtype)
    return b_low.to(dtype), b_high.to(dtype)


@triton.jit
def _rounded(a, b, DTYPE: tl.constexpr):
    """a × b rounded to DTYPE, in fp32."""
    return product(a, b).to(DTYPE).to(tl.float32)


@triton.jit
def _rotary_kernel(
    p_x,
    p_positions,
    p_cos_sin,
    p_out,
    x_token,
    x_head,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    launch_dependents()
    i_token = tl.program_id(0).to(tl.int64)
    o_head = tl.arange(0, BLOCK_HEADS)[:, None]
    o_half = tl.arange(0, BLOCK_HALF)[None, :]
    m_angle = o_half < HALF
    m = (o_head < HEADS) & m_angle
    wait()
    p_angle = p_cos_sin + tl.load(p_positions + i_token) * (2 * HALF) + o_half
    b_cos, b_sin = tl.load(p_angle, mask=m_angle, other=0.0), tl.load(p_angle + HALF, mask=m_angle, other=0.0)
    p_head = p_x + i_token * x_token + o_head * x_head
    b_first = tl.load(p_head + o_half, mask=m, other=0.0)
    b_second = tl.load(p_head + HALF + o_half, mask=m, other=0.0)
    b_low, b_high = rotate(b_first, b_second, b_cos, b_sin)
    p_turned = p_out + (i_token * HEADS + o_head) * D
    tl.store(p_turned + o_half, b_low, mask=m)
    tl.store(p_turned + HALF + o_half, b_high, mask=m)
    if D > 2 * HALF:
        o_rest = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
        m_rest = (o_head < HEADS) & (o_rest < D)
        tl.store(p_turned + o_rest, tl.load(p_head + o_rest, mask=m_rest), mask=m_rest)
