"""Gates on a GPU: those of the gated MLP, one of a whole row, and those of attention's heads."""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import math

import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, product, wait
from outrider.kernels.triton.launch import OVERLAPPED, empty_rows

_BLOCK = 1024

_GELU = tl.constexpr(-2.0 * math.sqrt(2.0 / math.pi))
"""Factor in the exponent of gelu's tanh form."""


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gate / (1 + exp(-gate))) × up; the quotient is fp32."""
    return _gated(gate_up, is_gelu=False)


def gelu_tanh_and_mul(gate_up: Tensor) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gate / (1 + exp(-2u))) × up; the quotient is fp32.

    u = sqrt(2 / π) (gate + 0.044715 gate³): (1 + tanh u) / 2 is 1 / (1 + exp(-2u)).
    """
    return _gated(gate_up, is_gelu=True)


def _gated(gate_up: Tensor, *, is_gelu: bool) -> Tensor:
    num_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    assert gate_up.shape[1] == 2 * width and gate_up.stride(1) == 1, "gate_up has two halves of contiguous columns"
    out = empty_rows(num_tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    if num_tokens > 0:
        grid = (num_tokens, triton.cdiv(width, _BLOCK))
        _gated_kernel[grid](
            gate_up, out, width, gate_up.stride(0), IS_GELU=is_gelu, BLOCK=_BLOCK, num_warps=4, **OVERLAPPED
        )
    return out


@triton.jit
def _gated_kernel(p_gate_up, p_out, width, stride, IS_GELU: tl.constexpr, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o_column < width
    wait()
    b_gate = tl.load(p_gate_up + i_row * stride + o_column, mask=m, other=0.0).to(tl.float32)
    b_up = tl.load(p_gate_up + i_row * stride + width + o_column, mask=m, other=0.0)
    b_exponent = -b_gate
    if IS_GELU:
        b_cube = product(product(product(b_gate, b_gate), b_gate), 0.044715 + tl.zeros([BLOCK], tl.float32))
        b_exponent = (b_cube + b_gate) * _GELU
    b_active = (b_gate / (1.0 + tl.exp(b_exponent))).to(b_up.dtype)
    b_out = (b_active.to(tl.float32) * b_up.to(tl.float32)).to(b_up.dtype)
    tl.store(p_out + i_row * width + o_column, b_out, mask=m)


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x, y [M, K], gate [M] fp32 -> [M, K] = x + sigmoid(gate) × y; sigmoid and product are rounded to x's dtype."""
    num_tokens, width = x.shape
    assert x.shape == y.shape and x.is_contiguous() and y.is_contiguous(), "add_gated takes contiguous rows"
    assert gate.shape == (num_tokens,), f"{num_tokens} rows, gate of {tuple(gate.shape)}"
    out = empty_rows(num_tokens, width, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        grid = (num_tokens, triton.cdiv(width, _BLOCK))
        _add_gated_kernel[grid](x, y, gate, out, width, gate.stride(0), BLOCK=_BLOCK, num_warps=4, **OVERLAPPED)
    return out


@triton.jit
def _add_gated_kernel(p_x, p_y, p_gate, p_out, width, stride, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o_column < width
    wait()
    b_x = tl.load(p_x + i_row * width + o_column, mask=m, other=0.0)
    b_y = tl.load(p_y + i_row * width + o_column, mask=m, other=0.0).to(tl.float32)
    b_gate = tl.zeros([BLOCK], tl.float32) + tl.load(p_gate + i_row * stride)
    b_sigmoid = (1.0 / (1.0 + tl.exp(-b_gate))).to(b_x.dtype).to(tl.float32)
    b_product = product(b_sigmoid, b_y).to(b_x.dtype).to(tl.float32)
    tl.store(p_out + i_row * width + o_column, (b_x.to(tl.float32) + b_product).to(b_x.dtype), mask=m)


def gate_heads(x: Tensor, heads: Tensor) -> Tensor:
    """x [M, H, D], heads [M, at least 2H, D] -> x × cast(sigmoid(gate)); the gate of head i is heads[:, 2i + 1]."""
    num_tokens, num_heads, head_dim = x.shape
    assert x.is_contiguous() and heads.stride(2) == 1 and heads.stride(1) == head_dim, "heads of a token are contiguous"
    out = empty_rows(num_tokens, num_heads, head_dim, dtype=x.dtype, device=x.device)
    if num_tokens > 0:
        width = num_heads * head_dim
        grid = (num_tokens, triton.cdiv(width, _BLOCK))
        _gate_heads_kernel[grid](
            x, heads, out, width, heads.stride(0), D=head_dim, BLOCK=_BLOCK, num_warps=4, **OVERLAPPED
        )
    return out


@triton.jit
def _gate_heads_kernel(p_x, p_heads, p_out, width, stride, D: tl.constexpr, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o < width
    wait()
    b_x = tl.load(p_x + i_row * width + o, mask=m, other=0.0)
    b_gate = tl.load(p_heads + i_row * stride + (2 * (o // D) + 1) * D + o % D, mask=m, other=0.0).to(tl.float32)
    b_sigmoid = (1.0 / (1.0 + tl.exp(-b_gate))).to(b_x.dtype)
    b_out = product(b_x.to(tl.float32), b_sigmoid.to(tl.float32)).to(b_x.dtype)
    tl.store(p_out + i_row * width + o, b_out, mask=m)
