"""The softmax state of a range of KV, the merge of two states, and the kernel that merges the states of split tiles.

A state is m, the largest score in log2 units; w, the sum of weights 2^(score - m); acc, the weighted values. Both
kernels of attention merge with these functions, whose every rounding is spelled out.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.triton import attention_plan
from outrider.kernels.triton.attention_records import (
    SPLIT_FIRST_PIECE,
    SPLIT_MERGED,
    SPLIT_WIDTH,
    STATE_MAX,
    STATE_SUM,
    STATE_WIDTH,
)

PIECE = gl.constexpr(attention_plan.PIECE)
LOG2E = gl.constexpr(1.4426950408889634)


@gluon.jit
def merge(m, w, acc, m_piece, w_piece, acc_piece):
    """The softmax state of two ranges of KV together: m, w [rows], acc [rows, columns]."""
    m_new = gl.maximum(m, m_piece)
    m_finite = gl.where(m_new == float("-inf"), 0.0, m_new)
    old, new = gl.exp2(m - m_finite), gl.exp2(m_piece - m_finite)
    w_new = gl.fma(w, old, w_piece * new)
    old = gl.convert_layout(old, gl.SliceLayout(1, acc.type.layout))
    new = gl.convert_layout(new, gl.SliceLayout(1, acc.type.layout))
    acc_new = gl.fma(acc, gl.zeros_like(acc) + old[:, None], acc_piece * new[:, None])
    return m_new, w_new, acc_new


@gluon.jit
def normalise(m, w, acc, p_sinks, o_head, m_row, HAS_SINKS: gl.constexpr):
    """acc / w, after the sink; zeros where nothing was seen."""
    if HAS_SINKS:
        b_sink = gl.load(p_sinks + o_head, mask=m_row, other=0.0).to(gl.float32) * LOG2E
        m_new = gl.maximum(m, b_sink)
        old = gl.exp2(m - m_new)
        w = gl.fma(w, old, gl.exp2(b_sink - m_new))
        acc = acc * gl.convert_layout(old, gl.SliceLayout(1, acc.type.layout))[:, None]
    inverse = 1.0 / gl.where(w == 0.0, 1.0, w)
    return acc * gl.convert_layout(inverse, gl.SliceLayout(1, acc.type.layout))[:, None] + 0.0


@gluon.jit
def _load_state(p_acc, p_state, o_slot, o_d, m_piece, D: gl.constexpr):
    m = gl.load(p_state + o_slot * STATE_WIDTH + STATE_MAX, mask=m_piece, other=float("-inf"))
    w = gl.load(p_state + o_slot * STATE_WIDTH + STATE_SUM, mask=m_piece, other=0.0)
    acc = gl.load(p_acc + o_slot[:, None] * D + o_d[None, :], mask=m_piece[:, None] & (o_d[None, :] < D), other=0.0)
    return m, w, acc


@gluon.jit(do_not_specialize=["num_heads", "out_stride", "max_pieces"])
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
    HEADS: gl.constexpr,
    D: gl.constexpr,
    HAS_SINKS: gl.constexpr,
):
    """Merge one token's HEADS query heads, one warp per head: the first part, then pieces in ascending order."""
    BLOCK: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [gl.num_warps(), 1], [1, 0])
    ROW: gl.constexpr = gl.SliceLayout(1, BLOCK)
    launch_dependents()
    wait()
    i_token = gl.program_id(0)
    num_merged = gl.load(p_splits + i_token * SPLIT_WIDTH + SPLIT_MERGED)
    first_piece = gl.load(p_splits + i_token * SPLIT_WIDTH + SPLIT_FIRST_PIECE)
    length = gl.load(p_lengths + i_token).to(gl.int32)
    if num_merged == 0:
        return
    o_head = gl.program_id(1) * HEADS + gl.arange(0, HEADS, layout=ROW)
    o_d = gl.arange(0, D, layout=gl.SliceLayout(0, BLOCK))
    m_head = o_head < num_heads
    o_slot = (i_token.to(gl.int64) * num_heads + o_head) * max_pieces
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
    p_row = p_out + i_token.to(gl.int64) * out_stride + o_head * D
    gl.store(p_row[:, None] + o_d[None, :], out, mask=m_head[:, None] & (o_d[None, :] < D))
