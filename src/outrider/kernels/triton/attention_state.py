"""The softmax state of a range of KV, the merge of two states, and the kernel that merges the states of split tiles.

A state is m, the largest score in log2 units; w, the sum of weights 2^(score - m); acc, the weighted values. Both
kernels of attention merge with these functions, whose every rounding is spelled out.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton import attention_plan
from outrider.kernels.triton.attention_records import (
    SPLIT_FIRST_PIECE,
    SPLIT_MERGED,
    SPLIT_WIDTH,
    STATE_MAX,
    STATE_SUM,
    STATE_WIDTH,
)
from outrider.kernels.triton.intrinsics import launch_dependents, wait

PIECE = tl.constexpr(attention_plan.PIECE)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def merge(m, w, acc, m_piece, w_piece, acc_piece):
    """The softmax state of two ranges of KV together: m, w [rows], acc [rows, columns]."""
    m_new = tl.maximum(m, m_piece)
    m_finite = tl.where(m_new == float("-inf"), 0.0, m_new)
    old, new = tl.exp2(m - m_finite), tl.exp2(m_piece - m_finite)
    w_new = tl.fma(w, old, w_piece * new)
    acc_new = tl.fma(acc, tl.zeros_like(acc) + old[:, None], acc_piece * new[:, None])
    return m_new, w_new, acc_new


@triton.jit
def normalise(m, w, acc, p_sinks, o_head, m_row, HAS_SINKS: tl.constexpr):
    """acc / w, after the sink; zeros where nothing was seen."""
    if HAS_SINKS:
        b_sink = tl.load(p_sinks + o_head, mask=m_row, other=0.0).to(tl.float32) * LOG2E
        m_new = tl.maximum(m, b_sink)
        old = tl.exp2(m - m_new)
        w = tl.fma(w, old, tl.exp2(b_sink - m_new))
        acc = acc * old[:, None]
    inverse = 1.0 / tl.where(w == 0.0, 1.0, w)
    return acc * inverse[:, None] + 0.0


@triton.jit
def store_state(m, w, acc, p_acc, p_state, o_slot, o_d, m_row, D: tl.constexpr):
    """Store the states of rows to their slots, of [num_tokens, heads, max_pieces]."""
    m_acc = m_row[:, None] & (o_d < D)[None, :]
    tl.store(p_acc + o_slot[:, None] * D + o_d[None, :], acc, mask=m_acc)
    tl.store(p_state + o_slot * STATE_WIDTH + STATE_MAX, m, mask=m_row)
    tl.store(p_state + o_slot * STATE_WIDTH + STATE_SUM, w, mask=m_row)


@triton.jit
def _load_state(p_acc, p_state, o_slot, o_d, m_piece, D: tl.constexpr):
    m = tl.load(p_state + o_slot * STATE_WIDTH + STATE_MAX, mask=m_piece, other=float("-inf"))
    w = tl.load(p_state + o_slot * STATE_WIDTH + STATE_SUM, mask=m_piece, other=0.0)
    acc = tl.load(p_acc + o_slot[:, None] * D + o_d[None, :], mask=m_piece[:, None] & (o_d < D)[None, :], other=0.0)
    return m, w, acc


@triton.jit(do_not_specialize=["num_heads", "out_stride", "max_pieces"])
def combine_kernel(
    p_lengths,
    p_splits,  # [n, SPLIT_WIDTH] int32, of the first n tokens, which may have been split
    p_acc,
    p_state,
    p_sinks,
    p_out,
    num_heads,
    out_stride,
    max_pieces,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Merge one token's HEADS query heads: the first part, then pieces in ascending order."""
    launch_dependents()
    wait()
    i_token = tl.program_id(0)
    num_merged = tl.load(p_splits + i_token * SPLIT_WIDTH + SPLIT_MERGED)
    first_piece = tl.load(p_splits + i_token * SPLIT_WIDTH + SPLIT_FIRST_PIECE)
    length = tl.load(p_lengths + i_token).to(tl.int32)
    if num_merged > 0:
        o_head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
        o_d = tl.arange(0, D_PAD)
        m_head = o_head < num_heads
        o_slot = (i_token.to(tl.int64) * num_heads + o_head) * max_pieces
        m, w, acc = _load_state(p_acc, p_state, o_slot + first_piece, o_d, m_head, D)
        end = (length + PIECE - 1) // PIECE
        for i in range(first_piece + num_merged, end, 4):
            # all loads before the first use; a missing piece changes nothing
            m_0, w_0, acc_0 = _load_state(p_acc, p_state, o_slot + i, o_d, m_head, D)
            m_1, w_1, acc_1 = _load_state(p_acc, p_state, o_slot + i + 1, o_d, m_head & (i + 1 < end), D)
            m_2, w_2, acc_2 = _load_state(p_acc, p_state, o_slot + i + 2, o_d, m_head & (i + 2 < end), D)
            m_3, w_3, acc_3 = _load_state(p_acc, p_state, o_slot + i + 3, o_d, m_head & (i + 3 < end), D)
            m, w, acc = merge(m, w, acc, m_0, w_0, acc_0)
            m, w, acc = merge(m, w, acc, m_1, w_1, acc_1)
            m, w, acc = merge(m, w, acc, m_2, w_2, acc_2)
            m, w, acc = merge(m, w, acc, m_3, w_3, acc_3)
        out = normalise(m, w, acc, p_sinks, o_head, m_head, HAS_SINKS).to(p_out.dtype.element_ty)
        p_row = p_out + i_token.to(tl.int64) * out_stride + o_head * D
        tl.store(p_row[:, None] + o_d[None, :], out, mask=m_head[:, None] & (o_d < D)[None, :])
