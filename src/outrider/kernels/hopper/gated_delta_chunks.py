"""The chunks of Gated DeltaNet in Gluon: a warp owns 16 columns of a value head and walks the chunks of one request.

A chunk is 16 tokens at their absolute positions. The state [columns, keys] stays in registers in the layout in which
the tensor cores leave a product, and is an operand of the next product in that layout: fp32, split into a sum of three
bf16 numbers, times keys in bf16. Rows of a chunk are solved one by one from the rows before them, known or new, so
their bits do not depend on the step in which each token came. `kernels/reference/gated_delta.py` describes the chunk
form.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.hopper.tma import reinterpret
from outrider.kernels.interface.state import CHUNK
from outrider.kernels.triton.gated_delta_chunks import INDICES

COLUMNS = 16
"""Columns of a value head per warp."""

_FLOOR = gl.constexpr(-64.0)
_C = gl.constexpr(CHUNK)


@gluon.constexpr_function
def _tile_layout(warps):
    return gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[warps, 1], instr_shape=[16, 8])


@gluon.constexpr_function
def _key_layout(warps, size):
    """Layout of keys: each thread has 16 bytes."""
    across = min(32, size // 8)
    return gl.BlockedLayout([1, 8], [32 // across, across], [warps, 1], [1, 0])


@gluon.constexpr_function
def _shared_key_layout(size):
    return gl.SwizzledSharedLayout(8, 1, min(8, size // 8), [1, 0])


@gluon.jit
def _parts(x, LAYOUT: gl.constexpr):
    """Split fp32 into a sum of three bf16, in the layout of an operand; each number stays in its thread."""
    high = x.to(gl.bfloat16)
    rest = x - high.to(gl.float32)
    middle = rest.to(gl.bfloat16)
    low = (rest - middle.to(gl.float32)).to(gl.bfloat16)
    return gl.convert_layout(high, LAYOUT), gl.convert_layout(middle, LAYOUT), gl.convert_layout(low, LAYOUT)


@gluon.jit
def _accumulate(sums, parts, y):
    """Sums + parts × y, one sum for each part, because a tensor core truncates what it adds to a large sum."""
    return mma_v2(parts[0], y, sums[0]), mma_v2(parts[1], y, sums[1]), mma_v2(parts[2], y, sums[2])


@gluon.jit
def _total(sums):
    return sums[0] + (sums[1] + sums[2])


@gluon.jit
def _moved(state, factor, rest, keys, zeros, LAYOUT: gl.constexpr):
    """The state after a chunk."""
    return state * factor + _total(_accumulate((zeros, zeros, zeros), _parts(rest, LAYOUT), keys))


@gluon.jit(do_not_specialize_on_alignment=INDICES)
def rule_kernel(
    p_q,  # [M, Kh, DK] bf16
    p_k,  # [M, Kh, DK] bf16
    p_v,  # [M, Vh, DV] bf16
    p_decay,  # [M, Vh] fp32
    p_beta,  # [M, Vh] fp32
    p_out,  # [M, Vh, DV] bf16
    p_state,  # [N, Vh, DK, DV] fp32
    p_state_out,  # [any, Vh, DK, DV] fp32
    p_keys,  # [N, PLACES, Kh, DK] bf16
    p_deltas,  # [N, PLACES, Vh, DV] fp32
    p_decays,  # [N, PLACES, Vh] fp32
    p_rows,
    p_starts,
    p_counts,
    p_sources,
    p_targets,
    p_row_starts,
    p_rows_out,
    PLACES: gl.constexpr,
    KEY_HEADS: gl.constexpr,
    VALUE_HEADS: gl.constexpr,
    DK: gl.constexpr,
    DV: gl.constexpr,
    BLOCK: gl.constexpr,
):
    launch_dependents()
    TILE: gl.constexpr = _tile_layout(gl.num_warps())
    ACROSS: gl.constexpr = gl.SliceLayout(0, TILE)
    DOWN: gl.constexpr = gl.SliceLayout(1, TILE)
    LEFT: gl.constexpr = gl.DotOperandLayout(0, TILE, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, TILE, 2)
    KEYS: gl.constexpr = _key_layout(gl.num_warps(), DK)
    i_batch = gl.program_id(0)
    i_head = gl.program_id(1)
    i_key_head = i_head // (VALUE_HEADS // KEY_HEADS)
    o_c = gl.arange(0, _C, ACROSS)
    o_row = gl.arange(0, _C, DOWN)
    HALF: gl.constexpr = DK // 2  # keys at a time; with all of them registers run out
    o_v = gl.program_id(2) * BLOCK + gl.arange(0, BLOCK, DOWN)
    o_key_token = gl.arange(0, _C, gl.SliceLayout(1, KEYS))
    o_keys = o_key_token[:, None] * (KEY_HEADS * DK) + gl.arange(0, DK, gl.SliceLayout(0, KEYS))[None, :]
    o_values = o_v[:, None] + o_c[None, :] * (VALUE_HEADS * DV)
    o_state = o_v[:, None] + gl.arange(0, HALF, ACROSS)[None, :] * DV
    m_v = (o_v < DV)[:, None]
    m_causal = o_row[:, None] >= o_c[None, :]
    s_q = gl.allocate_shared_memory(gl.bfloat16, [_C, DK], _shared_key_layout(DK))
    s_k = gl.allocate_shared_memory(gl.bfloat16, [_C, DK], _shared_key_layout(DK))
    s_weights = gl.allocate_shared_memory(gl.float32, [_C, _C], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    wait()
    i_row = gl.load(p_rows + i_batch)
    i_start = gl.load(p_starts + i_batch)
    i_end = i_start + gl.load(p_counts + i_batch)
    i_source = gl.load(p_sources + i_batch)
    i_target = gl.load(p_targets + i_batch)
    i_token = gl.load(p_row_starts + i_batch) - i_start  # of position 0
    p_head = p_state + (i_row * VALUE_HEADS + i_head) * (DK * DV)
    m_state = m_v & (gl.full([BLOCK, HALF], 0, gl.int64, TILE) + i_source > 0)
    b_state_0 = gl.load(p_head + o_state, mask=m_state, other=0.0)
    b_state_1 = gl.load(p_head + HALF * DV + o_state, mask=m_state, other=0.0)
    b_zeros = gl.full([BLOCK, _C], 0.0, gl.float32, TILE)
    b_pairs = gl.full([_C, _C], 0.0, gl.float32, TILE)
    for i_chunk in range(i_source // _C, (i_end + _C - 1) // _C):
        i_first = i_chunk * _C
        i_new = i_start - i_first  # place of the step's first token in this chunk; negative if it is before the chunk
        i_stop = i_end - i_first
        i_first_token = i_token + i_first
        i_place = i_row * PLACES + (i_first & (PLACES - 1))  # a chunk is contiguous in its ring
        m_old_key = (o_key_token < i_new)[:, None]
        m_new_key = ((o_key_token >= i_new) & (o_key_token < i_stop))[:, None]
        p_new_keys = (i_first_token * KEY_HEADS + i_key_head) * DK + o_keys
        b_k = gl.load(p_k + p_new_keys, mask=m_new_key, other=0.0)
        b_old_k = gl.load(p_keys + (i_place * KEY_HEADS + i_key_head) * DK + o_keys, mask=m_old_key, other=0.0)
        b_q = gl.load(p_q + p_new_keys, mask=m_new_key, other=0.0)
        m_old = o_c < i_new
        m_new = (o_c >= i_new) & (o_c < i_stop)
        i_gate = i_first_token * VALUE_HEADS + i_head
        i_old_gate = i_place * VALUE_HEADS + i_head
        b_decay = gl.load(p_decay + i_gate + o_c * VALUE_HEADS, mask=m_new, other=0.0)
        b_decay += gl.load(p_decays + i_old_gate + o_c * VALUE_HEADS, mask=m_old, other=0.0)
        b_beta = gl.load(p_beta + i_gate + o_c * VALUE_HEADS, mask=m_new, other=0.0)
        m_values = m_new[None, :] & m_v
        b_v = gl.load(p_v + i_gate * DV + o_values, mask=m_values, other=0.0).to(gl.float32)
        b_known = gl.load(p_deltas + i_old_gate * DV + o_values, mask=m_old[None, :] & m_v, other=0.0)
        s_k.store(gl.where(m_old_key, b_old_k, b_k))
        s_q.store(b_q)

        b_down = gl.sum(gl.where(m_causal, b_decay[None, :], 0.0), axis=1)
        b_running = gl.convert_layout(b_down, ACROSS)
        b_last = gl.sum(b_decay, axis=0)
        b_between = gl.exp(gl.maximum(gl.where(m_causal, b_down[:, None] - b_running[None, :], 0.0), _FLOOR))
        b_between = gl.where(m_causal, b_between, 0.0)
        b_from_start = gl.exp(gl.maximum(b_running, _FLOOR))[None, :]
        s_k_0, s_k_1 = s_k.slice(0, HALF, dim=1), s_k.slice(HALF, HALF, dim=1)
        s_q_0, s_q_1 = s_q.slice(0, HALF, dim=1), s_q.slice(HALF, HALF, dim=1)
        b_keys = s_k_0.permute((1, 0)).load(RIGHT)
        b_weights = mma_v2(s_k_0.load(LEFT), b_keys, b_pairs)
        b_scores = mma_v2(s_q_0.load(LEFT), b_keys, b_pairs)
        parts = _parts(b_state_0, LEFT)
        by_keys = _accumulate((b_zeros, b_zeros, b_zeros), parts, b_keys)
        by_queries = _accumulate((b_zeros, b_zeros, b_zeros), parts, s_q_0.permute((1, 0)).load(RIGHT))
        b_keys = s_k_1.permute((1, 0)).load(RIGHT)
        b_weights = mma_v2(s_k_1.load(LEFT), b_keys, b_weights) * b_between
        b_scores = mma_v2(s_q_1.load(LEFT), b_keys, b_scores) * b_between
        parts = _parts(b_state_1, LEFT)
        b_rest = b_v - _total(_accumulate(by_keys, parts, b_keys)) * b_from_start
        by_queries = _accumulate(by_queries, parts, s_q_1.permute((1, 0)).load(RIGHT))
        b_out = _total(by_queries) * b_from_start
        s_weights.store(gl.where(o_row[:, None] > o_c[None, :], b_weights, 0.0))
        b_rest = gl.where(m_old[None, :], b_known, b_rest)
        s_rows = reinterpret(s_weights, gl.float32, [_C, _C], gl.SwizzledSharedLayout(1, 1, 1, [0]))
        for i in range(gl.maximum(i_new, 0).to(gl.int32), gl.minimum(i_stop, _C).to(gl.int32)):
            b_before = gl.sum(b_rest * s_rows.index(i).load(ACROSS)[None, :], axis=1)
            b_rest = gl.where((o_c == i)[None, :], (b_rest - b_before[:, None]) * b_beta[None, :], b_rest)
        high, middle, low = _parts(b_rest, LEFT)
        right_high, right_middle, right_low = _parts(gl.permute(b_scores, (1, 0)), RIGHT)
        b_inner = mma_v2(middle, right_middle, mma_v2(high, right_low, mma_v2(low, right_high, b_zeros)))
        b_inner = mma_v2(high, right_high, mma_v2(middle, right_high, mma_v2(high, right_middle, b_inner)))
        gl.store(p_out + i_gate * DV + o_values, (b_out + b_inner).to(gl.bfloat16), mask=m_values)
        m_open = m_new & (i_first + o_c >= i_target)
        gl.store(p_deltas + i_old_gate * DV + o_values, b_rest, mask=m_open[None, :] & m_v)
        if i_first + _C <= gl.maximum(i_target, i_end - 1):  # otherwise the state after this chunk is not needed
            b_rest *= gl.exp(gl.maximum(b_last - b_running, _FLOOR))[None, :]
            b_factor = gl.exp(gl.maximum(b_last, _FLOOR))
            b_none = gl.full([BLOCK, HALF], 0.0, gl.float32, TILE)
            b_state_0 = _moved(b_state_0, b_factor, b_rest, s_k_0.load(RIGHT), b_none, LEFT)
            b_state_1 = _moved(b_state_1, b_factor, b_rest, s_k_1.load(RIGHT), b_none, LEFT)
            if i_first + _C == i_target:
                i_out = (gl.load(p_rows_out + i_batch) * VALUE_HEADS + i_head) * (DK * DV)
                gl.store(p_state_out + i_out + o_state, b_state_0, mask=m_v)
                gl.store(p_state_out + i_out + HALF * DV + o_state, b_state_1, mask=m_v)
