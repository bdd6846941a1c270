"""Attention of query tiles over paged KV in plain Triton.

Programs take the items of work in turns, back and forth, so that each gets long and short ones. A tile has 64 query
rows: heads of one kv head, of as many tokens as fit. KV comes in tiles of LANES positions. The softmax state is kept
piece by piece, and pieces are merged in ascending order, in registers here or from memory in `attention_state`. A tile
of KV that a row does not see changes none of its bits. Decoding, verifying and prefill differ only in how many of the
64 rows are used.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.attention_records import (
    FIRST_PART,
    ITEM_ALL_END,
    ITEM_ALL_LOW,
    ITEM_BEGIN,
    ITEM_COUNT,
    ITEM_END,
    ITEM_FIRST_PIECE,
    ITEM_LOW,
    ITEM_MODE,
    ITEM_ROW,
    ITEM_TOKEN,
    ITEM_WIDTH,
    LATER_PART,
    WHOLE,
)
from outrider.kernels.triton.attention_state import merge, normalise, store_state
from outrider.kernels.triton.intrinsics import launch_dependents, wait


@triton.jit(do_not_specialize=["kv_start", "window", "out_stride", "blocks_stride", "max_blocks", "max_pieces"])
def attention_kernel(
    p_q,  # [num_tokens, heads, D]
    p_k,  # [num_blocks, BLOCK_SIZE, KV_HEADS, D]
    p_v,  # likewise
    p_items,  # [bound, ITEM_WIDTH] int32
    p_num_items,  # [1] int32
    p_blocks,  # [num_rows, max_blocks] int32
    p_lengths,  # [num_tokens] int64
    p_out,  # [num_tokens, heads, D]
    p_acc,  # [num_tokens, heads, max_pieces, D] fp32
    p_state,  # [num_tokens, heads, max_pieces, STATE_WIDTH] fp32
    p_sinks,  # [heads]
    scale,  # times log2(e)
    kv_start,
    window,
    q_stride,
    q_head_stride,
    out_stride,
    blocks_stride,
    max_blocks,
    max_pieces,
    BLOCK_SIZE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    PIECE: tl.constexpr,
):
    launch_dependents()
    o_row = tl.arange(0, ROWS)
    o_lane = tl.arange(0, LANES)
    o_d = tl.arange(0, D_PAD)
    o_token, o_head = o_row // GROUP_PAD, o_row % GROUP_PAD
    m_d = o_d < D
    wait()
    num_items = tl.load(p_num_items) * KV_HEADS
    num_programs = tl.num_programs(0)
    for turn in range((num_items + num_programs - 1) // num_programs):
        place = tl.program_id(0)
        if turn % 2 == 1:
            place = num_programs - 1 - place
        item = turn * num_programs + place
        if item < num_items:
            i_head = item % KV_HEADS
            p_item = p_items + item // KV_HEADS * ITEM_WIDTH
            i_row = tl.load(p_item + ITEM_ROW)
            i_token = tl.load(p_item + ITEM_TOKEN)
            count = tl.load(p_item + ITEM_COUNT)
            begin = tl.load(p_item + ITEM_BEGIN)
            end = tl.load(p_item + ITEM_END)
            mode = tl.load(p_item + ITEM_MODE)
            tile_low = tl.load(p_item + ITEM_LOW)
            first_piece = tl.load(p_item + ITEM_FIRST_PIECE)
            all_end = tl.load(p_item + ITEM_ALL_END)
            all_low = tl.load(p_item + ITEM_ALL_LOW)
            m_row = (o_token < count) & (o_head < GROUP)
            b_end = tl.load(p_lengths + i_token + o_token, mask=m_row, other=0).to(tl.int32)
            b_low = tl.zeros_like(b_end) + kv_start
            if HAS_WINDOW:
                b_low = tl.maximum(b_low, b_end - window)
            o_query_head = i_head * GROUP + o_head
            o_q = (i_token + o_token).to(tl.int64) * q_stride + o_query_head * q_head_stride
            b_q = tl.load(p_q + o_q[:, None] + o_d[None, :], mask=m_row[:, None] & m_d[None, :], other=0.0)
            o_state = ((i_token + o_token).to(tl.int64) * (KV_HEADS * GROUP) + o_query_head) * max_pieces
            p_row = p_blocks + i_row.to(tl.int64) * blocks_stride
            m = tl.full([ROWS], float("-inf"), tl.float32)
            w = tl.zeros([ROWS], tl.float32)
            acc = tl.zeros([ROWS, D_PAD], tl.float32)
            m_piece = tl.full([ROWS], float("-inf"), tl.float32)
            w_piece = tl.zeros([ROWS], tl.float32)
            acc_piece = tl.zeros([ROWS, D_PAD], tl.float32)
            for start in range(begin, end, LANES):
                o_key = start + o_lane
                # slots that no row sees may hold anything, and 0 × NaN is NaN
                m_key = (o_key < end) & (o_key >= tile_low)
                i_block = tl.load(p_row + tl.minimum(o_key // BLOCK_SIZE, max_blocks - 1))
                o_slot = (i_block.to(tl.int64) * BLOCK_SIZE + o_key % BLOCK_SIZE) * (KV_HEADS * D) + i_head * D
                o_kv = o_slot[:, None] + o_d[None, :]
                m_kv = m_key[:, None] & m_d[None, :]
                b_k = tl.load(p_k + o_kv, mask=m_kv, other=0.0)
                b_v = tl.load(p_v + o_kv, mask=m_kv, other=0.0)
                b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee")
                if (start + LANES > all_end) | (start < all_low):
                    m_seen = (o_key[None, :] < b_end[:, None]) & (o_key[None, :] >= b_low[:, None])
                    b_s = tl.where(m_seen, b_s, float("-inf"))
                m_new = tl.maximum(m_piece, tl.max(b_s, axis=1) * scale)
                m_finite = tl.where(m_new == float("-inf"), 0.0, m_new)
                b_p = tl.exp2(tl.fma(b_s, tl.zeros_like(b_s) + scale, tl.zeros_like(b_s) - m_finite[:, None]))
                old = tl.exp2(m_piece - m_finite)
                w_piece = tl.fma(w_piece, old, tl.sum(b_p, axis=1))
                m_piece = m_new
                acc_piece = acc_piece * old[:, None]
                acc_piece = tl.dot(b_p.to(b_v.dtype), b_v, acc_piece, input_precision="ieee")
                if (start % PIECE == PIECE - LANES) | (start + LANES >= end):
                    if mode == LATER_PART:
                        o_own = o_state + start // PIECE
                        store_state(m_piece, w_piece, acc_piece, p_acc, p_state, o_own, o_d, m_row, D)
                    else:
                        m, w, acc = merge(m, w, acc, m_piece, w_piece, acc_piece)
                    m_piece = tl.full([ROWS], float("-inf"), tl.float32)
                    w_piece = tl.zeros([ROWS], tl.float32)
                    acc_piece = tl.zeros([ROWS, D_PAD], tl.float32)
            if mode == FIRST_PART:
                store_state(m, w, acc, p_acc, p_state, o_state + first_piece, o_d, m_row, D)
            elif mode == WHOLE:
                out = normalise(m, w, acc, p_sinks, o_query_head, m_row, HAS_SINKS).to(p_out.dtype.element_ty)
                o_out = (i_token + o_token).to(tl.int64) * out_stride + o_query_head * D
                tl.store(p_out + o_out[:, None] + o_d[None, :], out, mask=m_row[:, None] & m_d[None, :])
