"""Routes tokens to experts: makes lists of work on the device from the router's logits.

The host reads nothing here. A token keeps its experts in the order of its router: logit descending, expert
ascending where they are equal. The spread of tokens over tiles cannot change a bit of their results.

Legend: T tokens, E experts, K experts of one token.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED, counters

BLOCK = 8
"""Tokens of one CTA of the router. Up to this many need no gathering: every expert multiplies all of them."""

RECORD_WIDTH = tl.constexpr(4)
"""int32 numbers of a record, of which there is one for each tile of an expert's tokens; the last is unused."""
RECORD_EXPERT = tl.constexpr(0)
RECORD_FIRST_ROW = tl.constexpr(1)
RECORD_NUM_ROWS = tl.constexpr(2)

LONE_EXPERTS = 16
"""One token with at most this many experts needs no lists of work: its kernel reads the choice directly."""

_SMALL_TILE = 16
_COLUMNS = 1024


class Routing(NamedTuple):
    """Experts and weights of each token; the rest is for the kernels of the experts."""

    weights: Tensor  # [T, K] fp32
    ids: Tensor  # [T, K] int32
    ranks: Tensor  # [T, K] int32: row of (token, slot) = bases[token // BLOCK, expert] + rank; if gathered
    bases: Tensor  # [ceil(T / BLOCK), E] int32; if gathered
    slots: Tensor  # [bound, BLOCK] int32: slot of each token in which it chose the record's expert, or -1; if not
    records: Tensor  # [bound, RECORD_WIDTH] int32; empty for a lone token
    num_records: Tensor  # [1] int32
    tile: int  # rows of a record at most
    num_rows: int  # upper bound of the rows
    is_gathered: bool  # rows are copies of tokens, by expert; otherwise each record's rows are all tokens

    @property
    def is_lone(self) -> bool:
        """One token, with few experts."""
        return _is_lone(*self.ids.shape)


def _is_lone(num_tokens: int, top_k: int) -> bool:
    return num_tokens == 1 and top_k <= LONE_EXPERTS


def choose_tile(num_tokens: int, *, num_experts: int, top_k: int) -> int:
    """Rows of a tile, from the mean number of tokens of an expert; may be tuned freely."""
    mean = num_tokens * top_k / num_experts
    return 16 if mean <= 5 or num_tokens <= BLOCK else 32 if mean <= 16 else 64 if mean <= 40 else 128


def route(logits: Tensor, *, top_k: int, is_normalized: bool) -> Routing:
    """logits [T, E] fp32 -> the top_k experts of each token, by (logit descending, expert ascending).

    Weights are the softmax over all experts or, if normalized, over the chosen ones, which equals dividing by their
    sum; all in fp32, and the sum of the chosen is taken in their order. NaN counts as the largest logit.
    """
    num_tokens, num_experts = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, "router logits are rows of fp32"
    assert 0 < top_k <= num_experts, f"{top_k} of {num_experts} experts"
    device, num_blocks = logits.device, triton.cdiv(num_tokens, BLOCK)
    tile = choose_tile(num_tokens, num_experts=num_experts, top_k=top_k)
    is_gathered = num_tokens > BLOCK
    num_pairs = num_tokens * top_k
    num_used = min(num_experts, num_pairs)
    is_lone = _is_lone(num_tokens, top_k)
    bound = 0 if is_lone else num_used + (num_pairs // tile if is_gathered else 0)

    weights = torch.empty(num_tokens, top_k, dtype=torch.float32, device=device)
    ids, ranks = torch.empty(2, num_tokens, top_k, dtype=torch.int32, device=device)
    bases = torch.empty(num_blocks, num_experts, dtype=torch.int32, device=device)
    slots = torch.empty(0 if is_gathered else bound, BLOCK, dtype=torch.int32, device=device)
    records = torch.empty(bound, RECORD_WIDTH.value, dtype=torch.int32, device=device)
    num_records = torch.empty(1, dtype=torch.int32, device=device)
    if num_tokens > 0:
        _route_kernel[(num_blocks,)](
            logits,
            weights,
            ids,
            ranks,
            bases,
            slots,
            records,
            num_records,
            counters(device, 1),
            num_tokens,
            tile,
            logits.stride(0),
            K=top_k,
            K_PAD=triton.next_power_of_2(top_k),
            E=num_experts,
            E_PAD=triton.next_power_of_2(num_experts),
            LOG_E_PAD=(num_experts - 1).bit_length(),
            BLOCK=BLOCK,
            TOKENS=BLOCK if is_gathered else triton.next_power_of_2(num_tokens),
            IS_GATHERED=is_gathered,
            IS_LONE=is_lone,
            IS_NORMALIZED=is_normalized,
            num_warps=1 if num_tokens <= 4 else 4,
            **OVERLAPPED,
        )
    num_rows = num_pairs if is_gathered else num_used * _SMALL_TILE
    return Routing(weights, ids, ranks, bases, slots, records, num_records, tile, num_rows, is_gathered)


@triton.jit(do_not_specialize=["num_tokens", "tile", "stride"])
def _route_kernel(
    p_logits,  # [T, E] fp32
    p_weights,  # [T, K] fp32
    p_ids,  # [T, K] int32
    p_ranks,  # [T, K] int32
    p_bases,  # [blocks, E] int32: counts first
    p_slots,  # [bound, BLOCK] int32
    p_records,  # [bound, RECORD_WIDTH] int32
    p_num_records,
    p_count,  # int32, zero before and after
    num_tokens,
    tile,
    stride,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    LOG_E_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,  # of this program: BLOCK, or the number of tokens
    IS_GATHERED: tl.constexpr,
    IS_LONE: tl.constexpr,
    IS_NORMALIZED: tl.constexpr,
):
    """One warp handles up to four tokens: it finds the largest int32 by one instruction and waits for no other warp."""
    launch_dependents()
    i_block = tl.program_id(0)
    o_token = i_block * BLOCK + tl.arange(0, TOKENS)
    o_expert = tl.arange(0, E_PAD)
    o_slot = tl.arange(0, K_PAD)
    m_token = o_token < num_tokens
    m_expert = o_expert < E
    m_logit = m_token[:, None] & m_expert[None, :]
    wait()
    b_logit = tl.load(p_logits + o_token.to(tl.int64)[:, None] * stride + o_expert[None, :], mask=m_logit, other=0.0)
    b_logit = tl.where(b_logit == 0.0, 0.0, b_logit)  # −0 equals 0

    # int32 in the order of logits; of equal ones the lower expert comes first
    b_bits = b_logit.to(tl.int32, bitcast=True)
    b_order = tl.where(b_bits < 0, b_bits ^ 0x7FFFFFFF, b_bits)
    b_expert = tl.zeros([TOKENS, E_PAD], tl.int32) + o_expert[None, :]
    m_left = b_expert < E
    b_id = tl.zeros([TOKENS, K_PAD], tl.int32)
    b_value = tl.zeros([TOKENS, K_PAD], tl.float32)
    b_slot = tl.full([TOKENS, E_PAD], -1, tl.int32)
    b_largest = tl.zeros([TOKENS], tl.float32)
    b_sum = tl.zeros([TOKENS], tl.float32)
    for i in range(K):
        b_top = tl.max(tl.where(m_left, b_order, -0x80000000), axis=1)
        i_expert = tl.min(tl.where(m_left & (b_order == b_top[:, None]), b_expert, 0x7FFFFFFF), axis=1)
        b_chosen = tl.where(b_top < 0, b_top ^ 0x7FFFFFFF, b_top).to(tl.float32, bitcast=True)
        b_largest = tl.where(i == 0, b_chosen, b_largest)
        b_exp = tl.exp(b_chosen - b_largest)
        b_sum += b_exp
        m_hit = o_expert[None, :] == i_expert[:, None]
        m_left = m_left & ~m_hit
        b_slot = tl.where(m_hit, i, b_slot)
        b_id = tl.where(o_slot[None, :] == i, i_expert[:, None], b_id)
        b_value = tl.where(o_slot[None, :] == i, b_exp[:, None], b_value)
    if not IS_NORMALIZED:
        # in pairs, so that the order does not depend on how many tokens a program has
        b_part = tl.where(m_expert[None, :], tl.exp(b_logit - b_largest[:, None]), 0.0)
        for i in tl.static_range(LOG_E_PAD):
            b_part = tl.sum(tl.reshape(b_part, [TOKENS, 2, E_PAD >> (i + 1)]), axis=1)
        b_sum = tl.sum(b_part, axis=1)
    o_pair = o_token[:, None] * K + o_slot[None, :]
    m_pair = m_token[:, None] & (o_slot < K)[None, :]
    tl.store(p_weights + o_pair, b_value / b_sum[:, None], mask=m_pair)
    tl.store(p_ids + o_pair, b_id, mask=m_pair)

    m_chosen = (m_token[:, None] & (b_slot >= 0)).to(tl.int32)
    b_count = tl.sum(m_chosen, axis=0)
    if IS_LONE:
        pass
    elif not IS_GATHERED:
        # one CTA has all tokens, and every record has them all
        m_used = (b_count > 0).to(tl.int32)
        i_record = tl.cumsum(m_used, axis=0) - m_used
        p_slot = p_slots + i_record[None, :] * BLOCK + o_token[:, None]
        tl.store(p_slot, tl.where(m_chosen > 0, b_slot, -1), mask=(m_used > 0)[None, :] & (o_token >= 0)[:, None])
        o_rest = tl.arange(0, BLOCK)
        p_slot = p_slots + i_record[None, :] * BLOCK + o_rest[:, None]
        tl.store(
            p_slot, tl.full([BLOCK, E_PAD], -1, tl.int32), mask=(m_used > 0)[None, :] & (o_rest >= TOKENS)[:, None]
        )
        p_record = p_records + i_record * RECORD_WIDTH
        tl.store(p_record + RECORD_EXPERT, o_expert, mask=m_used > 0)
        tl.store(p_record + RECORD_FIRST_ROW, i_record * tile, mask=m_used > 0)
        tl.store(p_record + RECORD_NUM_ROWS, tl.zeros([E_PAD], tl.int32) + num_tokens, mask=m_used > 0)
        tl.store(p_num_records, tl.sum(m_used, axis=0))
    else:
        b_before = tl.cumsum(m_chosen, axis=0) - m_chosen
        b_rank = tl.zeros([BLOCK, K_PAD], tl.int32)
        for i in range(K):
            i_expert = tl.sum(tl.where(o_slot[None, :] == i, b_id, 0), axis=1)
            m_hit = o_expert[None, :] == i_expert[:, None]
            b_own = tl.sum(tl.where(m_hit, b_before, 0), axis=1)
            b_rank = tl.where(o_slot[None, :] == i, b_own[:, None], b_rank)
        tl.store(p_ranks + o_pair, b_rank, mask=m_pair)
        tl.store(p_bases + i_block * E + o_expert, b_count, mask=m_expert)
        tl.debug_barrier()
        num_blocks = tl.num_programs(0)
        if tl.atomic_add(p_count, 1, sem="acq_rel", scope="gpu") == num_blocks - 1:
            tl.store(p_count, 0)
            _finish(p_bases, p_records, p_num_records, num_blocks, tile, E, E_PAD, BLOCK * 2)


@triton.jit
def _finish(
    p_bases,
    p_records,
    p_num_records,
    num_blocks,
    tile,
    E: tl.constexpr,
    E_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Turn counts of blocks into first rows of blocks and make the records; the last CTA does it."""
    o_row = tl.arange(0, ROWS)
    o_expert = tl.arange(0, E_PAD)
    m_expert = o_expert < E
    b_total = tl.zeros([E_PAD], tl.int32)
    for i in range(0, num_blocks, ROWS):
        m = (i + o_row < num_blocks)[:, None] & m_expert[None, :]
        o = (i + o_row)[:, None] * E + o_expert[None, :]
        b_total += tl.sum(tl.load(p_bases + o, mask=m, other=0, cache_modifier=".cg"), axis=0)

    b_first = tl.cumsum(b_total, axis=0) - b_total
    b_tiles = (b_total + tile - 1) // tile
    i_first = tl.cumsum(b_tiles, axis=0) - b_tiles
    tl.store(p_num_records, tl.sum(b_tiles, axis=0))
    for i in range(tl.max(b_tiles, axis=0)):
        m_tile = i < b_tiles
        p_record = p_records + (i_first + i) * RECORD_WIDTH
        tl.store(p_record + RECORD_EXPERT, o_expert, mask=m_tile)
        tl.store(p_record + RECORD_FIRST_ROW, b_first + i * tile, mask=m_tile)
        tl.store(p_record + RECORD_NUM_ROWS, tl.minimum(b_total - i * tile, tile), mask=m_tile)

    for i in range(0, num_blocks, ROWS):
        m = (i + o_row < num_blocks)[:, None] & m_expert[None, :]
        o = (i + o_row)[:, None] * E + o_expert[None, :]
        b_count = tl.load(p_bases + o, mask=m, other=0, cache_modifier=".cg")
        tl.debug_barrier()
        tl.store(p_bases + o, b_first[None, :] + tl.cumsum(b_count, axis=0) - b_count, mask=m)
        b_first += tl.sum(b_count, axis=0)


def gather(x: Tensor, routing: Routing) -> Tensor:
    """x [T, H] -> [T × K, H]: rows of tokens, by expert."""
    num_tokens, width = x.shape
    rows = torch.empty(routing.num_rows, width, dtype=x.dtype, device=x.device)
    _gather_kernel[(num_tokens, triton.cdiv(width, _COLUMNS))](
        x,
        rows,
        routing.ids,
        routing.ranks,
        routing.bases,
        width,
        x.stride(0),
        K=routing.ids.shape[1],
        E=routing.bases.shape[1],
        BLOCK=BLOCK,
        COLUMNS=_COLUMNS,
        num_warps=4,
        **OVERLAPPED,
    )
    return rows


@triton.jit
def _row(p_ids, p_ranks, p_bases, i_token, i_pair, E: tl.constexpr, BLOCK: tl.constexpr):
    """Row of a (token, slot)."""
    i_expert = tl.load(p_ids + i_pair)
    return (tl.load(p_bases + i_token // BLOCK * E + i_expert) + tl.load(p_ranks + i_pair)).to(tl.int64)


@triton.jit(do_not_specialize=["stride"])
def _gather_kernel(
    p_x,  # [T, H]
    p_rows,  # [T × K, H]
    p_ids,
    p_ranks,
    p_bases,
    width,
    stride,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    launch_dependents()
    i_token = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    m = o_column < width
    wait()
    b_x = tl.load(p_x + i_token * stride + o_column, mask=m)
    for i in tl.static_range(K):
        i_row = _row(p_ids, p_ranks, p_bases, i_token, i_token * K + i, E, BLOCK)
        tl.store(p_rows + i_row * width + o_column, b_x, mask=m)


def combine(y: Tensor, routing: Routing, *, num_tokens: int) -> Tensor:
    """y [T × K, H], experts' results of gathered rows -> [T, H]: weighted sums over slots in order, rounded once."""
    width = y.shape[1]
    out = torch.empty(num_tokens, width, dtype=y.dtype, device=y.device)
    _combine_kernel[(num_tokens, triton.cdiv(width, _COLUMNS))](
        y,
        out,
        routing.weights,
        routing.ids,
        routing.ranks,
        routing.bases,
        width,
        K=routing.ids.shape[1],
        E=routing.bases.shape[1],
        BLOCK=BLOCK,
        COLUMNS=_COLUMNS,
        num_warps=4,
        **OVERLAPPED,
    )
    return out


@triton.jit
def _combine_kernel(
    p_y,  # [rows, H]
    p_out,  # [T, H]
    p_weights,
    p_ids,
    p_ranks,
    p_bases,
    width,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    launch_dependents()
    i_token = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    m = o_column < width
    acc = tl.zeros([COLUMNS], tl.float32)
    wait()
    for i in tl.static_range(K):
        i_row = _row(p_ids, p_ranks, p_bases, i_token, i_token * K + i, E, BLOCK)
        b_y = tl.load(p_y + i_row * width + o_column, mask=m, other=0.0).to(tl.float32)
        b_weight = tl.zeros([COLUMNS], tl.float32) + tl.load(p_weights + i_token * K + i)
        acc = tl.fma(b_weight, b_y, acc)
    tl.store(p_out + i_token * width + o_column, acc.to(p_out.dtype.element_ty), mask=m)
