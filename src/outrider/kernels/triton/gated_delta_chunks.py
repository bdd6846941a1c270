"""The walk over the chunks of Gated DeltaNet in plain Triton: `kernels/reference/gated_delta.py` has the formulas.

A program has BLOCK columns of one value head of one row, and walks the row's chunks in order. States are fp32. Products
with 16-bit keys take a state apart into three bf16, so that nothing of it is lost.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.interface.state import CHUNK
from outrider.kernels.triton.intrinsics import launch_dependents, wait

INDICES = [
    *("p_rows", "p_starts", "p_counts", "p_sources", "p_targets", "p_row_starts", "p_token_row", "p_rows_out"),
    *("p_num_known", "p_num_drafts", "p_num_tokens_left"),
]
"""Arguments that are parts of one buffer; their alignment must not cause another compilation."""

_FLOOR = tl.constexpr(-64.0)
_C = tl.constexpr(CHUNK)


@triton.jit
def _upper(x):
    """fp32 cut to the 8 bits of a bf16's mantissa."""
    return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _parts(x):
    """Split fp32 into a sum of three bf16, with nothing lost."""
    high = _upper(x)
    middle = _upper(x - high)
    return high.to(tl.bfloat16), middle.to(tl.bfloat16), (x - high - middle).to(tl.bfloat16)


@triton.jit
def _product(x, y, z):
    """x × y and x × z; x [rows, K] fp32, y and z [K, columns], bf16 or fp32. Each part has a sum of its own, because a
    tensor core truncates what it adds to a large sum."""
    if y.dtype == tl.float32:
        return tl.dot(x, y, input_precision="ieee"), tl.dot(x, z, input_precision="ieee")
    else:
        high, middle, low = _parts(x)
        x_y = tl.dot(high, y) + (tl.dot(middle, y) + tl.dot(low, y))
        return x_y, tl.dot(high, z) + (tl.dot(middle, z) + tl.dot(low, z))


@triton.jit
def _wide_product(x, y, IS_WIDE: tl.constexpr):
    """x [rows, K] × y [K, columns], both fp32, to about fp32."""
    if IS_WIDE:
        return tl.dot(x, y, input_precision="ieee")
    else:
        high, middle, low = _parts(x)
        y_high, y_middle, y_low = _parts(y)
        small = tl.dot(middle, y_middle, tl.dot(high, y_low, tl.dot(low, y_high)))
        return tl.dot(high, y_high, tl.dot(middle, y_high, tl.dot(high, y_middle, small)))


@triton.jit(do_not_specialize_on_alignment=INDICES)
def rule_kernel(
    p_q,  # [M, Kh, DK]
    p_k,  # [M, Kh, DK]
    p_v,  # [M, Vh, DV]
    p_decay,  # [M, Vh] fp32
    p_beta,  # [M, Vh] fp32
    p_out,  # [M, Vh, DV]
    p_state,  # [N, Vh, DK, DV] fp32
    p_state_out,  # [any, Vh, DK, DV] fp32
    p_keys,  # [N, PLACES, Kh, DK]
    p_deltas,  # [N, PLACES, Vh, DV] fp32
    p_decays,  # [N, PLACES, Vh] fp32
    p_rows,
    p_starts,
    p_counts,
    p_sources,
    p_targets,
    p_row_starts,
    p_rows_out,
    PLACES: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    i_batch = tl.program_id(0)
    i_head = tl.program_id(1)
    i_key_head = i_head // (VALUE_HEADS // KEY_HEADS)
    o_c = tl.arange(0, _C)
    o_v = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    o_d = tl.arange(0, DK)
    o_keys = o_c[:, None] * (KEY_HEADS * DK) + o_d[None, :]
    o_values = o_v[:, None] + o_c[None, :] * (VALUE_HEADS * DV)
    o_state = o_v[:, None] + o_d[None, :] * DV
    m_v = (o_v < DV)[:, None]
    m_causal = o_c[:, None] >= o_c[None, :]
    wait()
    i_row = tl.load(p_rows + i_batch)
    i_start = tl.load(p_starts + i_batch)
    i_end = i_start + tl.load(p_counts + i_batch)
    i_source = tl.load(p_sources + i_batch)
    i_target = tl.load(p_targets + i_batch)
    i_token = tl.load(p_row_starts + i_batch) - i_start  # of position 0
    p_head = p_state + (i_row * VALUE_HEADS + i_head) * (DK * DV)
    b_state = tl.load(
        p_head + o_state, mask=m_v & (tl.zeros([BLOCK, DK], tl.int64) + i_source > 0), other=0.0
    )  # [BLOCK, DK]
    for i_chunk in range(i_source // _C, (i_end + _C - 1) // _C):
        i_first = i_chunk * _C
        i_new = i_start - i_first  # place of the step's first token in this chunk; negative if it is before the chunk
        i_stop = i_end - i_first
        i_first_token = i_token + i_first
        i_place = i_row * PLACES + (i_first & (PLACES - 1))  # a chunk is contiguous in its ring
        m_old = o_c < i_new
        m_new = (o_c >= i_new) & (o_c < i_stop)
        p_new_keys = (i_first_token * KEY_HEADS + i_key_head) * DK + o_keys
        p_old_keys = (i_place * KEY_HEADS + i_key_head) * DK + o_keys
        b_new_k = tl.load(p_k + p_new_keys, mask=m_new[:, None], other=0.0)
        b_old_k = tl.load(p_keys + p_old_keys, mask=m_old[:, None], other=0.0)
        b_k = tl.where(m_old[:, None], b_old_k, b_new_k)
        b_q = tl.load(p_q + p_new_keys, mask=m_new[:, None], other=0.0)
        i_gate = i_first_token * VALUE_HEADS + i_head
        i_old_gate = i_place * VALUE_HEADS + i_head
        b_decay = tl.load(p_decay + i_gate + o_c * VALUE_HEADS, mask=m_new, other=0.0)
        b_decay += tl.load(p_decays + i_old_gate + o_c * VALUE_HEADS, mask=m_old, other=0.0)
        b_beta = tl.load(p_beta + i_gate + o_c * VALUE_HEADS, mask=m_new, other=0.0)
        m_values = m_new[None, :] & m_v
        b_v = tl.load(p_v + i_gate * DV + o_values, mask=m_values, other=0.0).to(tl.float32)
        b_known = tl.load(p_deltas + i_old_gate * DV + o_values, mask=m_old[None, :] & m_v, other=0.0)

        b_running = tl.sum(tl.where(m_causal, b_decay[None, :], 0.0), axis=1)
        b_last = tl.sum(b_decay, axis=0)
        b_between = tl.where(m_causal, b_running[:, None] - b_running[None, :], 0.0)
        b_between = tl.where(m_causal, tl.exp(tl.maximum(b_between, _FLOOR)), 0.0)
        b_from_start = tl.exp(tl.maximum(b_running, _FLOOR))[None, :]
        b_keys = tl.trans(b_k)  # [DK, C]
        b_weights = tl.dot(b_k, b_keys, input_precision="ieee") * b_between
        b_scores = tl.dot(b_q, b_keys, input_precision="ieee") * b_between
        b_weights = tl.where(o_c[:, None] > o_c[None, :], b_weights, 0.0)
        by_keys, by_queries = _product(b_state, b_keys, tl.trans(b_q))  # [BLOCK, C]
        b_rest = b_v - by_keys * b_from_start
        b_out = by_queries * b_from_start
        b_rest = tl.where(m_old[None, :], b_known, b_rest)
        for i in range(tl.maximum(i_new, 0).to(tl.int32), tl.minimum(i_stop, _C).to(tl.int32)):
            b_row = tl.sum(tl.where((o_c == i)[:, None], b_weights, 0.0), axis=0)
            b_before = tl.sum(b_rest * b_row[None, :], axis=1)
            b_rest = tl.where((o_c == i)[None, :], (b_rest - b_before[:, None]) * b_beta[None, :], b_rest)
        b_out += _wide_product(b_rest, tl.trans(b_scores), p_k.dtype.element_ty == tl.float32)
        tl.store(p_out + i_gate * DV + o_values, b_out.to(p_out.dtype.element_ty), mask=m_values)
        m_open = m_new & (i_first + o_c >= i_target)
        tl.store(p_deltas + i_old_gate * DV + o_values, b_rest, mask=m_open[None, :] & m_v)
        if i_first + _C <= tl.maximum(i_target, i_end - 1):  # otherwise the state after this chunk is not needed
            b_rest *= tl.exp(tl.maximum(b_last - b_running, _FLOOR))[None, :]
            by_values, _ = _product(b_rest, b_k, b_k)
            b_state = b_state * tl.exp(tl.maximum(b_last, _FLOOR)) + by_values
            if i_first + _C == i_target:
                i_out = (tl.load(p_rows_out + i_batch) * VALUE_HEADS + i_head) * (DK * DV)
                tl.store(p_state_out + i_out + o_state, b_state, mask=m_v)
