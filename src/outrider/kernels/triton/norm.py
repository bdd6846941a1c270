"""RMSNorm on a GPU, fp32 inside: cast and then multiplied by the weight, or multiplied by the weight or by 1 + weight
and then cast.

A row belongs to one program, whose shape is fixed by the width alone, so a row's sum has one order.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED, empty_rows


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False, casts_last: bool = False) -> Tensor:
    """x [..., K], weight [K] -> [..., K] = weight × cast(n), n = x / sqrt(mean(x²) + eps). The last dim is contiguous.

    plus_one: cast((1 + weight) × n), all in fp32. casts_last: cast(weight × n), likewise.
    """
    out = empty_rows(*x.shape, dtype=x.dtype, device=x.device)
    _run(x, None, weight, eps, out, None, plus_one=plus_one, casts_last=casts_last)
    return out


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False, casts_last: bool = False
) -> tuple[Tensor, Tensor]:
    """x, residual [M, K] -> (rms_norm(x + residual), x + residual)."""
    assert x.shape == residual.shape, f"{tuple(x.shape)} and {tuple(residual.shape)} cannot be added"
    out, total = (empty_rows(*x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _run(x, residual, weight, eps, out, total, plus_one=plus_one, casts_last=casts_last)
    return out, total


def _run(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    out: Tensor,
    total: Tensor | None,
    *,
    plus_one: bool,
    casts_last: bool,
) -> None:
    width = x.shape[-1]
    assert weight.shape == (width,) and weight.is_contiguous(), f"weight {tuple(weight.shape)} for rows of {width}"
    x = _rows_in_two_dims(x)
    residual = x if residual is None else _rows_in_two_dims(residual)
    num_outer, num_inner, _ = x.shape
    if num_outer * num_inner == 0:
        return
    block = triton.next_power_of_2(width)
    rows = max(1, 1024 // block)
    _norm_kernel[(triton.cdiv(num_outer * num_inner, rows),)](
        x,
        residual,
        weight,
        out,
        out if total is None else total,
        num_outer * num_inner,
        num_inner,
        width,
        eps,
        x.stride(0),
        x.stride(1),
        residual.stride(0),
        residual.stride(1),
        HAS_RESIDUAL=total is not None,
        PLUS_ONE=plus_one,
        CASTS_LAST=casts_last,
        ROWS=rows,
        BLOCK=block,
        num_warps=max(1, min(16, block * rows // 512)),
        **OVERLAPPED,
    )


def _rows_in_two_dims(x: Tensor) -> Tensor:
    """[A, B, K] without a copy where strides allow, as they do for the heads of a projection."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    if x.ndim == 3:
        return x
    return x.view(-1, 1, x.shape[-1]) if x.ndim <= 2 else x.reshape(-1, x.shape[-2], x.shape[-1])


@triton.jit(do_not_specialize=["num_rows", "num_inner"])
def _norm_kernel(
    p_x,  # [num_outer, num_inner, width]
    p_residual,  # likewise
    p_weight,  # [width]
    p_out,  # [num_rows, width]
    p_total,  # [num_rows, width]
    num_rows,
    num_inner,
    width,
    eps,
    x_outer,
    x_inner,
    r_outer,
    r_inner,
    HAS_RESIDUAL: tl.constexpr,
    PLUS_ONE: tl.constexpr,
    CASTS_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    o_row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    o_column = tl.arange(0, BLOCK)
    m = (o_row < num_rows)[:, None] & (o_column < width)[None, :]
    b_weight = tl.load(p_weight + o_column, mask=o_column < width, other=0.0).to(tl.float32)
    wait()
    o_x = (o_row // num_inner) * x_outer + (o_row % num_inner) * x_inner
    b_x = tl.load(p_x + o_x[:, None] + o_column[None, :], mask=m, other=0.0)
    if HAS_RESIDUAL:
        o_r = (o_row // num_inner) * r_outer + (o_row % num_inner) * r_inner
        b_residual = tl.load(p_residual + o_r[:, None] + o_column[None, :], mask=m, other=0.0)
        b_x = (b_x.to(tl.float32) + b_residual.to(tl.float32)).to(b_x.dtype)
        tl.store(p_total + o_row[:, None] * width + o_column[None, :], b_x, mask=m)
    b_wide = b_x.to(tl.float32)
    b_variance = tl.sum(b_wide * b_wide, axis=1) / width + eps
    b_norm = b_wide * tl.math.rsqrt(b_variance)[:, None]
    if PLUS_ONE:
        b_out = (b_norm * (b_weight + 1.0)[None, :]).to(b_x.dtype)
    elif CASTS_LAST:
        b_out = (b_norm * b_weight[None, :]).to(b_x.dtype)
    else:
        b_out = (b_norm.to(b_x.dtype).to(tl.float32) * b_weight[None, :]).to(b_x.dtype)
    tl.store(p_out + o_row[:, None] * width + o_column[None, :], b_out, mask=m)
