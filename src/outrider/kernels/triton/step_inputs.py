"""Index arithmetic of a step in Triton: which token goes where, and how a row advances.

Integers only, so results equal those of `reference/step_inputs.py` exactly, on a GPU and in Triton's interpreter.

Legend: R rows of the step, T tokens of the step, K drafts at most, N rows of the table.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.step import Assembled

_BLOCK = 128


@triton.jit
def slot_of(p_table, o_row, b_index, m, max_blocks, BLOCK_SIZE: tl.constexpr):
    """KV slots of places `b_index` in rows that begin at `o_row`."""
    b_column = tl.minimum(tl.maximum(b_index // BLOCK_SIZE, 0), max_blocks - 1)
    b_block = tl.load(p_table + o_row + b_column, mask=m, other=0).to(tl.int64)
    return b_block * BLOCK_SIZE + b_index % BLOCK_SIZE


def assemble(
    token_ids: Tensor,  # [N, width] int32
    num_tokens: Tensor,  # [N] int64
    num_computed: Tensor,  # [N] int64
    max_total: Tensor,  # [N] int64
    drafts: Tensor,  # [N, K] int64
    num_drafts: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64, table row of each row of the step
    num_known: Tensor,  # [R] int64, chunk length, or 1
    draft_bound: Tensor,  # [R] int64, most drafts the plan allows
    token_row: Tensor,  # [T] int64, row of the step of each token
    token_offset: Tensor,  # [T] int64, place of each token in its row
    block_size: int,
) -> Assembled:
    """Tokens of the step: known ones from the table, then drafts, as many as are real and still allowed."""
    num_rows, num_step_tokens = rows.shape[0], token_row.shape[0]
    of_tokens = torch.empty(4, num_step_tokens + num_step_tokens % 2, dtype=torch.int64, device=rows.device)
    of_rows = torch.empty(2, num_rows + num_rows % 2, dtype=torch.int64, device=rows.device)
    if max(num_rows, num_step_tokens) > 0:
        _assemble_kernel[(triton.cdiv(max(num_rows, num_step_tokens), _BLOCK),)](
            token_ids,
            num_tokens,
            num_computed,
            max_total,
            drafts,
            num_drafts,
            block_tables,
            rows,
            num_known,
            draft_bound,
            token_row,
            token_offset,
            of_tokens,
            of_rows,
            num_rows,
            num_step_tokens,
            drafts.shape[1],
            block_tables.shape[1],
            token_ids.stride(0),
            drafts.stride(0),
            block_tables.stride(0),
            BLOCK_SIZE=block_size,
            BLOCK=_BLOCK,
        )
    # each begins at a multiple of 16 bytes, so that no kernel that reads it is compiled for others
    return Assembled(*(part[:num_step_tokens] for part in of_tokens), *(part[:num_rows] for part in of_rows))


@triton.jit
def _drafts_used(p_num_tokens, p_max_total, p_num_drafts, p_rows, p_num_known, p_draft_bound, o_row, m):
    """Table row, num_tokens_left, drafts in use and valid tokens of rows `o_row` of the step."""
    i_table = tl.load(p_rows + o_row, mask=m, other=0)
    b_tokens_left = tl.load(p_max_total + i_table, mask=m, other=0) - tl.load(p_num_tokens + i_table, mask=m, other=0)
    b_tokens_left = tl.maximum(b_tokens_left, 0)
    b_used = tl.load(p_num_drafts + i_table, mask=m, other=0)
    b_used = tl.minimum(b_used, tl.load(p_draft_bound + o_row, mask=m, other=0))
    b_used = tl.maximum(tl.minimum(b_used, b_tokens_left - 1), 0)
    b_valid = tl.where(b_tokens_left > 0, tl.load(p_num_known + o_row, mask=m, other=0) + b_used, 0)
    return i_table, b_tokens_left, b_used, b_valid


@triton.jit(do_not_specialize=["num_rows", "num_step_tokens", "num_places", "max_blocks"])
def _assemble_kernel(
    p_token_ids,
    p_num_tokens,
    p_num_computed,
    p_max_total,
    p_drafts,
    p_num_drafts,
    p_tables,
    p_rows,
    p_num_known,
    p_draft_bound,
    p_token_row,
    p_token_offset,
    p_of_tokens,  # [4, T, even]: ids, positions, slots, kv lengths
    p_of_rows,  # [2, R, even]: drafts in use, num_tokens_left
    num_rows,
    num_step_tokens,
    num_places,
    max_blocks,
    ids_stride,
    drafts_stride,
    tables_stride,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_row = o < num_rows
    _, b_tokens_left, b_used, _ = _drafts_used(
        p_num_tokens, p_max_total, p_num_drafts, p_rows, p_num_known, p_draft_bound, o, m_row
    )
    tl.store(p_of_rows + o, b_used, mask=m_row)
    tl.store(p_of_rows + num_rows + num_rows % 2 + o, b_tokens_left, mask=m_row)

    m = o < num_step_tokens
    i_row = tl.load(p_token_row + o, mask=m, other=0)
    b_offset = tl.load(p_token_offset + o, mask=m, other=0)
    i_table, _, _, b_valid = _drafts_used(
        p_num_tokens, p_max_total, p_num_drafts, p_rows, p_num_known, p_draft_bound, i_row, m
    )
    m_valid = m & (b_offset < b_valid)
    b_position = tl.where(m_valid, tl.load(p_num_computed + i_table, mask=m, other=0) + b_offset, 0)
    b_ahead = b_position - tl.load(p_num_tokens + i_table, mask=m, other=0)
    m_known = m_valid & (b_ahead < 0)
    m_draft = m_valid & (b_ahead >= 0)
    b_known = tl.load(p_token_ids + i_table * ids_stride + b_position, mask=m_known, other=0).to(tl.int64)
    b_place = tl.minimum(tl.maximum(b_ahead, 0), num_places - 1)
    b_guess = tl.load(p_drafts + i_table * drafts_stride + b_place, mask=m_draft, other=0)
    b_slot = slot_of(p_tables, i_table * tables_stride, b_position, m_valid, max_blocks, BLOCK_SIZE)
    pitch = num_step_tokens + num_step_tokens % 2
    tl.store(p_of_tokens + o, tl.where(m_known, b_known, b_guess), mask=m)
    tl.store(p_of_tokens + pitch + o, b_position, mask=m)
    tl.store(p_of_tokens + pitch * 2 + o, tl.where(m_valid, b_slot, 0), mask=m)
    tl.store(p_of_tokens + pitch * 3 + o, tl.where(m_valid, b_position + 1, 0), mask=m)


def commit(
    token_ids: Tensor,  # [N, width] int32, changed
    num_tokens: Tensor,  # [N] int64, changed
    num_computed: Tensor,  # [N] int64, changed
    *,
    rows: Tensor,  # [R] int64
    num_known: Tensor,  # [R] int64
    num_tokens_left: Tensor,  # [R] int64, before this step
    emitted: Tensor,  # [R, K + 1] int64
    num_emitted: Tensor,  # [R] int64
    num_accepted: Tensor,  # [R] int64
) -> None:
    """Append emitted tokens and advance the lengths. Nothing is written past num_emitted."""
    num_rows, num_places = emitted.shape
    if num_rows > 0:
        _commit_kernel[(triton.cdiv(num_rows, _BLOCK),)](
            token_ids,
            num_tokens,
            num_computed,
            rows,
            num_known,
            num_tokens_left,
            emitted,
            num_emitted,
            num_accepted,
            num_rows,
            num_places,
            token_ids.stride(0),
            emitted.stride(0),
            BLOCK=_BLOCK,
        )


@triton.jit(do_not_specialize=["num_rows", "num_places"])
def _commit_kernel(
    p_token_ids,
    p_num_tokens,
    p_num_computed,
    p_rows,
    p_num_known,
    p_num_tokens_left,
    p_emitted,
    p_num_emitted,
    p_num_accepted,
    num_rows,
    num_places,
    ids_stride,
    emitted_stride,
    BLOCK: tl.constexpr,
):
    o_row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = o_row < num_rows
    i_table = tl.load(p_rows + o_row, mask=m, other=0)
    b_start = tl.load(p_num_tokens + i_table, mask=m, other=0)
    b_emitted = tl.load(p_num_emitted + o_row, mask=m, other=0)
    for i in range(num_places):
        m_place = m & (i < b_emitted)
        b_id = tl.load(p_emitted + o_row * emitted_stride + i, mask=m_place, other=0)
        tl.store(p_token_ids + i_table * ids_stride + b_start + i, b_id.to(tl.int32), mask=m_place)
    tl.store(p_num_tokens + i_table, b_start + b_emitted, mask=m)
    b_done = tl.load(p_num_known + o_row, mask=m, other=0) + tl.load(p_num_accepted + o_row, mask=m, other=0)
    b_done = tl.where(tl.load(p_num_tokens_left + o_row, mask=m, other=0) > 0, b_done, 0)
    tl.store(p_num_computed + i_table, tl.load(p_num_computed + i_table, mask=m, other=0) + b_done, mask=m)


def put_drafts(
    drafts: Tensor,  # [N, K] int64, changed
    num_drafts: Tensor,  # [N] int64, changed
    *,
    rows: Tensor,  # [R] int64
    proposed: Tensor,  # [R, at most K] int64, any values
    has_sampled: Tensor,  # [R] bool, False for a chunk that is not the last
    num_tokens: Tensor,  # [N] int64, after commit
    vocab_size: int,
    position_limit: int,
) -> None:
    """Store the drafts before the first that is not a token id or reaches `position_limit`."""
    num_rows, num_places = proposed.shape
    if num_rows > 0:
        _put_drafts_kernel[(triton.cdiv(num_rows, _BLOCK),)](
            drafts,
            num_drafts,
            rows,
            proposed,
            has_sampled,
            num_tokens,
            num_rows,
            num_places,
            vocab_size,
            position_limit,
            drafts.stride(0),
            proposed.stride(0),
            BLOCK=_BLOCK,
        )


@triton.jit(do_not_specialize=["num_rows", "num_places", "vocab_size", "position_limit"])
def _put_drafts_kernel(
    p_drafts,
    p_num_drafts,
    p_rows,
    p_proposed,
    p_has_sampled,
    p_num_tokens,
    num_rows,
    num_places,
    vocab_size,
    position_limit,
    drafts_stride,
    proposed_stride,
    BLOCK: tl.constexpr,
):
    o_row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = o_row < num_rows
    i_table = tl.load(p_rows + o_row, mask=m, other=0)
    b_num_real = tl.zeros([BLOCK], tl.int64)
    for i in range(num_places):
        b_id = tl.load(p_proposed + o_row * proposed_stride + i, mask=m, other=0)
        m_token = (b_id >= 0) & (b_id < vocab_size)
        b_num_real += (m_token & (b_num_real == i)).to(tl.int64)
        tl.store(p_drafts + i_table * drafts_stride + i, tl.where(m_token, b_id, 0), mask=m)
    b_limit = tl.maximum(position_limit - tl.load(p_num_tokens + i_table, mask=m, other=0), 0)
    m_sampled = tl.load(p_has_sampled + o_row, mask=m, other=0) != 0
    tl.store(p_num_drafts + i_table, tl.where(m_sampled, tl.minimum(b_num_real, b_limit), 0), mask=m)
