"""The experts of a mixture on any GPU: two kernels of grouped products, the same bits for a token in every batch.

The design is that of `linear`, except that K is never cut: weights take the M dimension of the instruction, 64 rows at
a time, and a dot product is one chain over K in ascending order. `routing` makes lists of (expert, rows); only the
device knows their number, so a program whose record does not exist does nothing.

Rounding points are those of a dense MLP: gate and up to the model's dtype, silu(gate) from fp32 to that dtype, its
product with up, the row of down. The weighted sum over a token's experts is fp32, in the router's order, rounded once.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.triton.intrinsics import launch_dependents, product, wait
from outrider.kernels.triton.launch import INSTRUCTION, OVERLAPPED, empty_rows, shared_bytes
from outrider.kernels.triton.linear import dot_product
from outrider.kernels.triton.routing import (
    BLOCK,
    RECORD_EXPERT,
    RECORD_FIRST_ROW,
    RECORD_NUM_ROWS,
    RECORD_WIDTH,
    Routing,
    combine,
    gather,
)

_PITCH = 64
"""Rows of a weight start at multiples of this many elements, so that 16 bytes are loaded at once."""

_ROWS = 64
"""Rows of weights of a tile."""

_COLUMNS = 1024
_MAX_STAGES = 5
_LONE_TILE = 16
"""Tokens of a tile for a lone token: the fewest that the instruction takes."""


def empty_expert_weights(
    num_experts: int, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """An empty weight [num_experts, output_size, input_size]; each row starts at an aligned address."""
    pitch = triton.cdiv(input_size, _PITCH) * _PITCH
    return torch.empty(num_experts, output_size, pitch, dtype=dtype, device=device)[:, :, :input_size]


def experts(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing) -> Tensor:
    """x [T, H], gate_up [E, 2I, H] with gate rows first, down [E, H, I], one dtype -> [T, H].

    Each token is the weighted sum of its experts' gated MLPs. Experts have no capacity limit, and no token is dropped.
    """
    return _mixture(x, gate_up, down, routing, None)


def clamped_experts(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing, form: ClampedForm) -> Tensor:
    """x [T, H], gate_up [E, 2I, H] with gate rows first, down [E, H, I], one dtype -> [T, H].

    The biases are added to fp32 sums, that of down before an expert's row is weighted.
    """
    return _mixture(x, gate_up, down, routing, form)


def _mixture(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing, form: ClampedForm | None) -> Tensor:
    (num_tokens, hidden_size), top_k = x.shape, routing.ids.shape[1]
    num_experts, width = down.shape[0], down.shape[2]
    assert gate_up.shape == (num_experts, 2 * width, hidden_size), f"gate_up is {tuple(gate_up.shape)}"
    assert down.shape[1] == hidden_size, f"down {tuple(down.shape)} does not fit x {tuple(x.shape)}"
    assert routing.ids.shape[0] == num_tokens, f"{num_tokens} tokens, routing of {routing.ids.shape[0]}"
    assert x.dtype == gate_up.dtype == down.dtype, f"x is {x.dtype}, weights are {gate_up.dtype} and {down.dtype}"
    assert gate_up.stride(2) == down.stride(2) == 1, "columns of weights are contiguous"
    if num_tokens == 0:
        return x.new_empty(0, hidden_size)
    if routing.is_gathered:
        x = gather(x, routing)
    elif x.stride(1) != 1:
        x = x.contiguous()
    tile = _LONE_TILE if routing.is_lone else routing.tile
    num_records = top_k if routing.is_lone else routing.records.shape[0]
    inner = torch.empty(num_records * tile, width, dtype=x.dtype, device=x.device)
    y = torch.empty(num_tokens * top_k, hidden_size, dtype=x.dtype, device=x.device)
    common = {
        "TILE": tile,
        "ROWS": _ROWS,
        "IS_GATHERED": routing.is_gathered,
        "IS_LONE": routing.is_lone,
        "IS_CLAMPED": form is not None,
        "num_warps": 4 if tile <= 64 else 8,
        **INSTRUCTION,
        **OVERLAPPED,
    }
    block_k = 128 if tile <= 32 else 64
    _gate_up_kernel[(num_records, triton.cdiv(width, _ROWS))](
        x,
        gate_up,
        inner,
        inner if form is None else form.gate_up_bias,
        routing.ids,
        routing.records,
        routing.num_records,
        0.0 if form is None else form.alpha,
        0.0 if form is None else form.limit,
        hidden_size,
        width,
        x.stride(0),
        gate_up.stride(0),
        gate_up.stride(1),
        BLOCK_K=block_k,
        num_stages=_stages(x, 2 * _ROWS + tile, block_k),
        **common,
    )
    _down_kernel[(num_records, triton.cdiv(hidden_size, _ROWS))](
        inner,
        down,
        y,
        y if form is None else form.down_bias,
        routing.ids,
        routing.records,
        routing.num_records,
        routing.slots,
        width,
        hidden_size,
        down.stride(0),
        down.stride(1),
        K=top_k,
        BLOCK=BLOCK,
        BLOCK_K=block_k,
        num_stages=_stages(x, _ROWS + tile, block_k),
        **common,
    )
    if routing.is_gathered:
        return combine(y, routing, num_tokens=num_tokens)
    out = empty_rows(num_tokens, hidden_size, dtype=x.dtype, device=x.device)
    _combine_kernel[(num_tokens, triton.cdiv(hidden_size, _COLUMNS))](
        y, out, routing.weights, hidden_size, K=top_k, COLUMNS=_COLUMNS, num_warps=4, **OVERLAPPED
    )
    return out


def _stages(x: Tensor, rows: int, block_k: int) -> int:
    """Tiles in flight, as many as fit into shared memory."""
    return max(1, min(_MAX_STAGES, shared_bytes(x.device) // (rows * block_k * x.element_size())))


@triton.jit
def _record(p_ids, p_records, p_num_records, TILE: tl.constexpr, IS_LONE: tl.constexpr):
    """True if this program's record exists; its expert, first row and number of rows."""
    i_record = tl.program_id(0)
    if IS_LONE:
        exists = i_record >= 0
        i_expert = tl.load(p_ids + i_record)
        first_row = i_record * TILE
        num_rows = 1
    else:
        exists = i_record < tl.load(p_num_records)
        p_record = p_records + i_record * RECORD_WIDTH
        i_expert = tl.load(p_record + RECORD_EXPERT, mask=exists, other=0)
        first_row = tl.load(p_record + RECORD_FIRST_ROW, mask=exists, other=0)
        num_rows = tl.load(p_record + RECORD_NUM_ROWS, mask=exists, other=0)
    return exists, i_expert.to(tl.int64), first_row, num_rows


@triton.jit(do_not_specialize=["W"])
def _gate_up_kernel(
    p_x,  # [rows or T, H]
    p_weights,  # [E, 2W, H]
    p_inner,  # [rows, W]
    p_bias,  # [E, 2W], if clamped
    p_ids,  # [T, K] int32
    p_records,  # [bound, RECORD_WIDTH] int32
    p_num_records,
    alpha,
    limit,
    H,
    W,
    x_stride,
    expert_stride,
    row_stride,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_GATHERED: tl.constexpr,
    IS_LONE: tl.constexpr,
    IS_CLAMPED: tl.constexpr,
):
    """The gated inner row of a record's rows, ROWS columns of it."""
    launch_dependents()
    wait()
    exists, i_expert, first_row, num_rows = _record(p_ids, p_records, p_num_records, TILE, IS_LONE)
    if exists:
        o_row = tl.arange(0, TILE)
        o_column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        o_k = tl.arange(0, BLOCK_K)
        m_row = o_row < num_rows
        m_column = o_column < W
        o_x = o_row
        if IS_GATHERED:
            o_x += first_row
        p_tokens = p_x + o_x.to(tl.int64) * x_stride
        p_gate = p_weights + i_expert * expert_stride + o_column.to(tl.int64) * row_stride
        p_up = p_gate + W.to(tl.int64) * row_stride
        gate = tl.zeros([ROWS, TILE], tl.float32)
        up = tl.zeros([ROWS, TILE], tl.float32)
        for k in range(0, H, BLOCK_K):
            m_k = k + o_k < H
            m_w = m_column[:, None] & m_k[None, :]
            b_x = tl.load(p_tokens[None, :] + (k + o_k)[:, None], mask=m_row[None, :] & m_k[:, None], other=0.0)
            b_gate = tl.load(p_gate[:, None] + (k + o_k)[None, :], mask=m_w, other=0.0)
            b_up = tl.load(p_up[:, None] + (k + o_k)[None, :], mask=m_w, other=0.0)
            gate = tl.dot(b_gate, b_x, gate, input_precision="ieee")
            up = tl.dot(b_up, b_x, up, input_precision="ieee")
        dtype: tl.constexpr = p_inner.dtype.element_ty
        if IS_CLAMPED:
            p_own = p_bias + i_expert * (2 * W) + o_column
            gate += tl.load(p_own, mask=m_column, other=0.0).to(tl.float32)[:, None]
            up += tl.load(p_own + W, mask=m_column, other=0.0).to(tl.float32)[:, None]
        gate = gate.to(dtype).to(tl.float32)
        up = up.to(dtype).to(tl.float32)
        if IS_CLAMPED:
            gate = tl.minimum(gate, limit)
            up = tl.clamp(up, -limit, limit)
            inner = gate / (1.0 + tl.exp(product(gate, tl.zeros_like(gate) - alpha))) * (up + 1.0)
        else:
            inner = (gate / (1.0 + tl.exp(-gate))).to(dtype).to(tl.float32) * up
        p_out = p_inner + (first_row + o_row).to(tl.int64)[None, :] * W + o_column[:, None]
        tl.store(p_out, inner.to(dtype), mask=m_row[None, :] & m_column[:, None])


@triton.jit(do_not_specialize=["H"])
def _down_kernel(
    p_inner,  # [rows, W]
    p_weights,  # [E, H, W]
    p_y,  # [T × K, H], by row if gathered, else by token and slot
    p_bias,  # [E, H], if clamped
    p_ids,  # [T, K] int32
    p_records,  # [bound, RECORD_WIDTH] int32
    p_num_records,
    p_slots,  # [bound, BLOCK] int32, if neither gathered nor lone
    W,
    H,
    expert_stride,
    row_stride,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_GATHERED: tl.constexpr,
    IS_LONE: tl.constexpr,
    IS_CLAMPED: tl.constexpr,
):
    """ROWS columns of the outputs of a record's rows."""
    launch_dependents()
    wait()
    exists, i_expert, first_row, num_rows = _record(p_ids, p_records, p_num_records, TILE, IS_LONE)
    if exists:
        o_row = tl.arange(0, TILE)
        o_column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        m_row = o_row < num_rows
        m_column = o_column < H
        p_rows = p_inner + (first_row + o_row).to(tl.int64) * W
        p_down = p_weights + i_expert * expert_stride + o_column.to(tl.int64) * row_stride
        total = dot_product(p_down, p_rows, m_column, m_row, 0, W, ROWS, TILE, BLOCK_K)
        if IS_CLAMPED:
            total += tl.load(p_bias + i_expert * H + o_column, mask=m_column, other=0.0).to(tl.float32)[:, None]
        if IS_GATHERED:
            o_y = first_row + o_row
        elif IS_LONE:
            o_y = tl.program_id(0) + o_row
        else:
            b_slot = tl.load(p_slots + tl.program_id(0) * BLOCK + o_row, mask=o_row < BLOCK, other=-1)
            m_row = m_row & (b_slot >= 0)
            o_y = o_row * K + b_slot
        p_out = p_y + o_y.to(tl.int64)[None, :] * H + o_column[:, None]
        tl.store(p_out, total.to(p_y.dtype.element_ty), mask=m_row[None, :] & m_column[:, None])


@triton.jit
def _combine_kernel(
    p_y,  # [T × K, H], by token and slot
    p_out,  # [T, H]
    p_weights,  # [T, K] fp32
    H,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Weighted sum of a token's slots in order, rounded once."""
    launch_dependents()
    i_token = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    m = o_column < H
    acc = tl.zeros([COLUMNS], tl.float32)
    wait()
    for i in tl.static_range(K):
        b_y = tl.load(p_y + (i_token * K + i) * H + o_column, mask=m, other=0.0).to(tl.float32)
        b_weight = tl.zeros([COLUMNS], tl.float32) + tl.load(p_weights + i_token * K + i)
        acc = tl.fma(b_weight, b_y, acc)
    tl.store(p_out + i_token * H + o_column, acc.to(p_out.dtype.element_ty), mask=m)
