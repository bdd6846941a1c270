"""Gated DeltaNet on any GPU: the chunk form of `kernels/reference/gated_delta.py`, three kernels per layer.

The first computes the inputs of the chunks, `gated_delta_chunks.py` walks the chunks, and the last normalises their
outputs. A tile is a whole chunk of 16 tokens at its absolute position, so a token's bits cannot depend on how many
tokens share its step. Each ring is written by the kernel after the one that reads it.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.state import CHUNK, CONV_WIDTH, StateRows
from outrider.kernels.reference.gated_delta import load_states, places_before  # copies of whole rows: exact anywhere
from outrider.kernels.triton.gated_delta_chunks import INDICES, rule_kernel
from outrider.kernels.triton.intrinsics import launch_dependents, log1p, product, wait
from outrider.kernels.triton.launch import OVERLAPPED, empty_rows

__all__ = [
    "finish_gated_delta",
    "gated_delta_inputs",
    "gated_delta_rule",
    "load_states",
    "save_states",
    "state_rows",
]

_COLUMNS = 32
"""Columns of a value head of a program that walks the chunks of a request."""

_FEW_TOKENS = 32
"""With more tokens than this, programs of the first and the last kernel are larger."""

_TAPS = tl.constexpr(CONV_WIDTH)
_C = tl.constexpr(CHUNK)


def state_rows(
    num_computed: Tensor,
    state_lengths: Tensor,
    state_known: Tensor,
    *,
    rows: Tensor,
    num_known: Tensor,
    num_drafts: Tensor,
    num_tokens_left: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """starts, counts, sources, targets, known of `StateRows`, all [R] int64."""
    block = 128
    found = torch.empty(5, triton.cdiv(rows.shape[0], block) * block, dtype=torch.int64, device=rows.device)
    _rows_kernel[(triton.cdiv(rows.shape[0], block),)](
        num_computed,
        state_lengths,
        state_known,
        rows,
        num_known,
        num_drafts,
        num_tokens_left,
        found,
        found.stride(0),
        rows.shape[0],
        BLOCK=block,
        num_warps=4,
    )
    starts, counts, sources, targets, known = found[:, : rows.shape[0]].unbind()
    return starts, counts, sources, targets, known


@triton.jit(do_not_specialize=["num_rows", "stride"], do_not_specialize_on_alignment=INDICES)
def _rows_kernel(
    p_computed,
    p_lengths,
    p_known,
    p_rows,
    p_num_known,
    p_num_drafts,
    p_num_tokens_left,
    p_found,
    stride,
    num_rows,
    BLOCK: tl.constexpr,
):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = o < num_rows
    i_row = tl.load(p_rows + o, mask=m, other=0)
    b_num_known = tl.load(p_num_known + o, mask=m, other=0)
    m_real = tl.load(p_num_tokens_left + o, mask=m, other=0) > 0
    b_start = tl.load(p_computed + i_row, mask=m, other=0)
    b_source = tl.load(p_lengths + i_row, mask=m, other=0)
    b_before = tl.load(p_known + i_row, mask=m, other=0)
    b_known = tl.where(m_real, b_start + b_num_known, b_before)
    b_sure = tl.where(b_num_known > 1, b_known, b_before)
    b_count = tl.where(m_real, b_num_known + tl.load(p_num_drafts + o, mask=m, other=0), 0)
    b_target = tl.where(m_real, tl.maximum(b_source, b_sure // _C * _C), b_source)
    tl.store(p_found + o, b_start, mask=m)
    tl.store(p_found + stride + o, b_count, mask=m)
    tl.store(p_found + 2 * stride + o, b_source, mask=m)
    tl.store(p_found + 3 * stride + o, b_target, mask=m)
    tl.store(p_found + 4 * stride + o, b_known, mask=m)


def gated_delta_inputs(
    projected: Tensor,
    inputs: Tensor,
    conv_weight: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    at: StateRows,
    *,
    num_key_heads: int,
    key_size: int,
    value_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k [M, Kh, dk], v [M, Vh, dv], log decay and β [M, Vh] fp32, from projected [M, channels + Vh dv + 2 Vh]."""
    num_tokens, num_value_heads = projected.shape[0], a_log.shape[0]
    assert projected.stride(1) == 1 and inputs.is_contiguous() and conv_weight.is_contiguous(), "columns are contiguous"
    assert inputs.shape[1] & (inputs.shape[1] - 1) == 0, f"a ring has {inputs.shape[1]} places, not a power of two"

    def empty(heads: int, size: int) -> Tensor:
        return torch.empty(num_tokens, heads, size, dtype=projected.dtype, device=projected.device)

    q, k, v = empty(num_key_heads, key_size), empty(num_key_heads, key_size), empty(num_value_heads, value_size)
    log_decay, beta = (
        torch.empty(num_tokens, num_value_heads, dtype=torch.float32, device=projected.device) for _ in range(2)
    )
    if num_tokens > 0:
        block = triton.next_power_of_2(max(key_size, value_size))
        tokens, warps = _tokens(num_tokens, block)
        _inputs_kernel[(triton.cdiv(num_tokens, tokens), 2 * num_key_heads + num_value_heads)](
            projected,
            inputs,
            conv_weight,
            a_log,
            dt_bias,
            at.rows,
            at.starts,
            at.row_starts,
            at.token_row,
            q,
            k,
            v,
            log_decay,
            beta,
            projected.stride(0),
            key_size**-0.5,
            num_tokens,
            PLACES=inputs.shape[1],
            CHANNELS=inputs.shape[2],
            KEY_HEADS=num_key_heads,
            VALUE_HEADS=num_value_heads,
            DK=key_size,
            DV=value_size,
            BLOCK=block,
            TOKENS=tokens,
            num_warps=warps,
            **OVERLAPPED,
        )
    return q, k, v, log_decay, beta


def _tokens(num_tokens: int, block: int) -> tuple[int, int]:
    """Tokens of a program with `block` columns of each token, and its warps.

    A thread has at least 8 numbers, which it loads at once. So a token's columns lie in the same threads in small and
    in large programs, and are summed in the same order.
    """
    tokens = max(256 // block, 1)
    return (tokens, 1) if num_tokens <= _FEW_TOKENS else (8 * tokens, 4)


@triton.jit(do_not_specialize=["num_tokens"], do_not_specialize_on_alignment=INDICES)
def _inputs_kernel(
    p_projected,  # [M, stride]
    p_inputs,  # [N, PLACES, CHANNELS]
    p_weight,  # [CHANNELS, TAPS]
    p_a_log,  # [Vh] fp32
    p_dt_bias,  # [Vh] fp32
    p_rows,
    p_starts,
    p_row_starts,
    p_token_row,
    p_q,
    p_k,
    p_v,
    p_decay,
    p_beta,
    stride,
    scale,
    num_tokens,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
):
    launch_dependents()
    o_token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    i_head = tl.program_id(1)
    is_value = i_head >= 2 * KEY_HEADS
    i_value = i_head - 2 * KEY_HEADS
    size = tl.where(is_value, DV, DK)
    first = tl.where(is_value, 2 * KEY_HEADS * DK + i_value * DV, i_head * DK)
    o = tl.arange(0, BLOCK)
    m_token = o_token < num_tokens
    m = m_token[:, None] & (o < size)[None, :]
    wait()
    i_batch = tl.load(p_token_row + o_token, mask=m_token, other=0)
    o_offset = o_token - tl.load(p_row_starts + i_batch)
    o_row = tl.load(p_rows + i_batch)
    o_position = tl.load(p_starts + i_batch) + o_offset
    b_sum = tl.zeros([TOKENS, BLOCK], tl.float32)
    for tap in tl.static_range(_TAPS):
        back = _TAPS - 1 - tap
        m_here = m & (o_offset >= back)[:, None]
        m_kept = m & ((o_offset < back) & (o_position >= back))[:, None]
        o_place = o_row * PLACES + ((o_position - back) & (PLACES - 1))
        p_here = p_projected + ((o_token - back) * stride)[:, None] + first + o[None, :]
        p_kept = p_inputs + (o_place * CHANNELS)[:, None] + first + o[None, :]
        b_here = tl.load(p_here, mask=m_here, other=0.0).to(tl.float32)
        b_kept = tl.load(p_kept, mask=m_kept, other=0.0).to(tl.float32)
        b_weight = tl.load(p_weight + (first + o) * _TAPS + tap, mask=o < size, other=0.0).to(tl.float32)
        b_sum += product(b_here + b_kept, b_weight[None, :])
    b_y = (b_sum / (1.0 + tl.exp(-b_sum))).to(p_v.dtype.element_ty)
    if is_value:
        o_gate = o_token * VALUE_HEADS + i_value
        tl.store(p_v + (o_gate * DV)[:, None] + o[None, :], b_y, mask=m)
        p_gates = p_projected + o_token * stride + CHANNELS + VALUE_HEADS * DV + i_value
        b_b = tl.load(p_gates, mask=m_token, other=0.0).to(tl.float32)
        b_a = tl.load(p_gates + VALUE_HEADS, mask=m_token, other=0.0).to(tl.float32) + tl.load(p_dt_bias + i_value)
        b_softplus = tl.maximum(b_a, 0.0) + log1p(tl.exp(-tl.abs(b_a)))
        b_decay = -tl.exp(tl.load(p_a_log + i_value)) * b_softplus
        tl.store(p_decay + o_gate, b_decay, mask=m_token)
        tl.store(p_beta + o_gate, 1.0 / (1.0 + tl.exp(-b_b)), mask=m_token)
    else:
        b_wide = tl.where(m, b_y.to(tl.float32), 0.0)
        b_unit = b_wide * tl.math.rsqrt(tl.sum(b_wide * b_wide, axis=1) + 1e-6)[:, None]
        if i_head < KEY_HEADS:
            o_out = ((o_token * KEY_HEADS + i_head) * DK)[:, None] + o[None, :]
            tl.store(p_q + o_out, (b_unit * scale).to(b_y.dtype), mask=m)
        else:
            o_out = ((o_token * KEY_HEADS + i_head - KEY_HEADS) * DK)[:, None] + o[None, :]
            tl.store(p_k + o_out, b_unit.to(b_y.dtype), mask=m)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    at: StateRows,
) -> Tensor:
    """o [M, Vh, dv] in v's dtype. States move to their targets, and the δ of open tokens go to the ring."""
    out = torch.empty_like(v)
    if v.shape[0] > 0:
        walk(q, k, v, log_decay, beta, out, state, state, keys, deltas, log_decays, at, at.rows)
    return out


def walk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    out: Tensor,
    state: Tensor,
    state_out: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    at: StateRows,
    rows_out: Tensor,
    *,
    kernel: Any = rule_kernel,
    columns: int = _COLUMNS,
) -> None:
    """Walk the chunks of all rows. The state that a row reaches is written to row `rows_out` of `state_out`.

    kernel: one of four warps with the arguments of `rule_kernel`; columns: that its program has of a value head.
    """
    num_heads, key_size, value_size = state.shape[1:]
    num_key_heads, num_places = keys.shape[2], keys.shape[1]
    assert key_size >= 16 and key_size & (key_size - 1) == 0, f"keys of {key_size} are not built"
    kernel[(at.rows.shape[0], num_heads, triton.cdiv(value_size, columns))](
        q,
        k,
        v,
        log_decay,
        beta,
        out,
        state,
        state_out,
        keys,
        deltas,
        log_decays,
        at.rows,
        at.starts,
        at.counts,
        at.sources,
        at.targets,
        at.row_starts,
        rows_out,
        PLACES=num_places,
        KEY_HEADS=num_key_heads,
        VALUE_HEADS=num_heads,
        DK=key_size,
        DV=value_size,
        BLOCK=columns,
        num_warps=4,
        **OVERLAPPED,
    )


def finish_gated_delta(
    out: Tensor,
    projected: Tensor,
    k: Tensor,
    log_decay: Tensor,
    weight: Tensor,
    eps: float,
    inputs: Tensor,
    keys: Tensor,
    log_decays: Tensor,
    at: StateRows,
) -> Tensor:
    """[M, Vh dv] = rms_norm(out) × silu(z), per head. Writes open tokens to the rings for later steps."""
    num_tokens, num_value_heads, value_size = out.shape
    gated = empty_rows(num_tokens, num_value_heads * value_size, dtype=out.dtype, device=out.device)
    if num_tokens > 0:
        block = triton.next_power_of_2(max(k.shape[2], value_size))
        tokens, warps = _tokens(num_tokens, block)
        _finish_kernel[(triton.cdiv(num_tokens, tokens), num_value_heads)](
            out,
            projected,
            k,
            log_decay,
            weight,
            gated,
            inputs,
            keys,
            log_decays,
            at.rows,
            at.starts,
            at.counts,
            at.targets,
            at.row_starts,
            at.token_row,
            eps,
            projected.stride(0),
            num_tokens,
            PLACES=inputs.shape[1],
            CHANNELS=inputs.shape[2],
            KEY_HEADS=k.shape[1],
            VALUE_HEADS=num_value_heads,
            DK=k.shape[2],
            DV=value_size,
            BLOCK=block,
            TOKENS=tokens,
            num_warps=warps,
            **OVERLAPPED,
        )
    return gated


@triton.jit(do_not_specialize=["num_tokens"], do_not_specialize_on_alignment=INDICES)
def _finish_kernel(
    p_out,  # [M, Vh, DV]
    p_projected,  # [M, stride]
    p_k,  # [M, Kh, DK]
    p_decay,  # [M, Vh] fp32
    p_weight,  # [DV]
    p_gated,  # [M, Vh × DV]
    p_inputs,  # [N, PLACES, CHANNELS]
    p_keys,  # [N, PLACES, Kh, DK]
    p_decays,  # [N, PLACES, Vh] fp32
    p_rows,
    p_starts,
    p_counts,
    p_targets,
    p_row_starts,
    p_token_row,
    eps,
    stride,
    num_tokens,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
):
    launch_dependents()
    o_token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    i_head = tl.program_id(1)
    o = tl.arange(0, BLOCK)
    m_token = o_token < num_tokens
    m = m_token[:, None] & (o < DV)[None, :]
    b_weight = tl.load(p_weight + o, mask=o < DV, other=0.0).to(tl.float32)
    wait()
    i_batch = tl.load(p_token_row + o_token, mask=m_token, other=0)
    o_offset = o_token - tl.load(p_row_starts + i_batch)
    o_position = tl.load(p_starts + i_batch) + o_offset
    o_target = tl.load(p_targets + i_batch)
    m_real = m_token & (o_offset < tl.load(p_counts + i_batch))
    o_gate = o_token * VALUE_HEADS + i_head
    o_value = (o_gate * DV)[:, None] + o[None, :]
    p_from = p_projected + (o_token * stride)[:, None] + o[None, :]
    b_out = tl.load(p_out + o_value, mask=m & m_real[:, None], other=0.0)
    b_z = tl.load(p_from + CHANNELS + i_head * DV, mask=m, other=0.0).to(tl.float32)
    b_wide = b_out.to(tl.float32)
    b_scale = tl.math.rsqrt(tl.sum(b_wide * b_wide, axis=1) / DV + eps)
    b_norm = (b_wide * b_scale[:, None]).to(b_out.dtype).to(tl.float32)
    b_norm = (b_norm * b_weight[None, :]).to(b_out.dtype).to(tl.float32)
    b_gated = (b_norm * (b_z / (1.0 + tl.exp(-b_z)))).to(b_out.dtype)
    tl.store(p_gated + o_value, tl.where(m_real[:, None], b_gated, 0.0), mask=m)

    o_place = tl.load(p_rows + i_batch) * PLACES + (o_position & (PLACES - 1))
    m_open = m_real & (o_position >= o_target)
    b_decay = tl.load(p_decay + o_gate, mask=m_open, other=0.0)
    tl.store(p_decays + o_place * VALUE_HEADS + i_head, b_decay, mask=m_open)
    m_behind = (m_real & (o_position >= o_target - (_TAPS - 1)))[:, None] & (o < DV)[None, :]
    p_to = p_inputs + (o_place * CHANNELS)[:, None] + o[None, :]
    i_v = 2 * KEY_HEADS * DK + i_head * DV
    tl.store(p_to + i_v, tl.load(p_from + i_v, mask=m_behind), mask=m_behind)
    if i_head < KEY_HEADS:
        m_behind = (m_real & (o_position >= o_target - (_TAPS - 1)))[:, None] & (o < DK)[None, :]
        i_q, i_k = i_head * DK, (KEY_HEADS + i_head) * DK
        tl.store(p_to + i_q, tl.load(p_from + i_q, mask=m_behind), mask=m_behind)
        tl.store(p_to + i_k, tl.load(p_from + i_k, mask=m_behind), mask=m_behind)
        m_key = m_open[:, None] & (o < DK)[None, :]
        b_key = tl.load(p_k + ((o_token * KEY_HEADS + i_head) * DK)[:, None] + o[None, :], mask=m_key)
        tl.store(p_keys + ((o_place * KEY_HEADS + i_head) * DK)[:, None] + o[None, :], b_key, mask=m_key)


def save_states(
    state: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    inputs: Tensor,
    saved_state: Tensor,
    saved_inputs: Tensor,
    *,
    rows: Tensor,
    slots: Tensor,
    sources: Tensor,
    lengths: Tensor,
    most_open: int,
) -> None:
    """Write snapshots of the rows' states after their first `lengths` tokens; each slot is named once."""
    save_states_by(
        walk, state, keys, deltas, log_decays, inputs, saved_state, saved_inputs, rows=rows, slots=slots,
        sources=sources, lengths=lengths, most_open=most_open,
    )  # fmt: skip


def save_states_by(
    walk: Callable[..., None],
    state: Tensor,
    keys: Tensor,
    deltas: Tensor,
    log_decays: Tensor,
    inputs: Tensor,
    saved_state: Tensor,
    saved_inputs: Tensor,
    *,
    rows: Tensor,
    slots: Tensor,
    sources: Tensor,
    lengths: Tensor,
    most_open: int,
) -> None:
    """`save_states` with any walk over the chunks."""
    saved_state[slots] = state[rows]  # remains where the state is at `lengths` already
    at = StateRows(
        rows=rows,
        starts=lengths,
        counts=torch.zeros_like(lengths),
        sources=sources,
        targets=lengths,
        known=lengths,
        row_starts=lengths,
        token_row=rows,
        row_counts=(),
        most_open=most_open,
    )
    # no token is new, so arguments for new tokens are never read or written
    walk(keys, keys, deltas, log_decays, log_decays, deltas, state, saved_state, keys, deltas, log_decays, at, slots)
    saved_inputs[slots] = inputs[rows[:, None], places_before(lengths, inputs.shape[1])]
