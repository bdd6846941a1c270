"""Inputs of a drafter's passes on a GPU: the tokens after the target's, and the drafter's own drafts.

Integers only, so results equal those of `reference/drafter_inputs.py` exactly, on a GPU and in Triton's interpreter.

Legend: R rows of the step, T tokens of the step, N rows of the table.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.step import ChainTokens
from outrider.kernels.triton.step_inputs import slot_of

_BLOCK = 128


def chain_known(
    token_ids: Tensor,  # [N, width] int32
    num_tokens: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64
    token_row: Tensor,  # [T] int64
    positions: Tensor,  # [T] int64
    kv_lengths: Tensor,  # [T] int64
    first_index: int,
    block_size: int,
) -> ChainTokens:
    """The token after each of the target's, where it is known; a rejected draft gives padding."""
    count = token_row.shape[0]
    out = torch.empty(4, count, dtype=torch.int64, device=rows.device)
    if count > 0:
        _chain_kernel[(triton.cdiv(count, _BLOCK),)](
            token_ids,
            num_tokens,
            num_tokens,
            block_tables,
            rows,
            token_row,
            positions,
            kv_lengths,
            out,
            count,
            0,
            first_index,
            token_ids.shape[1],
            block_tables.shape[1],
            token_ids.stride(0),
            block_tables.stride(0),
            IS_KNOWN=True,
            BLOCK_SIZE=block_size,
            BLOCK=_BLOCK,
        )
    return ChainTokens(*out)


def chain_drafted(
    num_tokens: Tensor,  # [N] int64
    max_total: Tensor,  # [N] int64
    block_tables: Tensor,  # [N, max_blocks] int32
    *,
    rows: Tensor,  # [R] int64
    drafts: Tensor,  # [R] int64, any values
    num_emitted: Tensor,  # [R] int64
    step: int,
    vocab_size: int,
    first_index: int,
    block_size: int,
) -> ChainTokens:
    """The draft `step` positions after the last known token; padding where the request ends before it."""
    count = rows.shape[0]
    out = torch.empty(4, count, dtype=torch.int64, device=rows.device)
    if count > 0:
        _chain_kernel[(triton.cdiv(count, _BLOCK),)](
            drafts,
            num_tokens,
            max_total,
            block_tables,
            rows,
            rows,
            rows,
            num_emitted,
            out,
            count,
            step,
            first_index,
            vocab_size,
            block_tables.shape[1],
            drafts.stride(0),
            block_tables.stride(0),
            IS_KNOWN=False,
            BLOCK_SIZE=block_size,
            BLOCK=_BLOCK,
        )
    return ChainTokens(*out)


@triton.jit(do_not_specialize=["count", "step", "first_index", "limit", "max_blocks"])
def _chain_kernel(
    p_ids,  # known: [N, width] int32; drafted: [T] int64
    p_num_tokens,
    p_max_total,
    p_tables,
    p_rows,
    p_token_row,  # known only
    p_positions,  # known only
    p_is_there,  # [T]: more than 0 where there is a token
    p_out,  # [4, T]
    count,
    step,
    first_index,
    limit,  # known: width of the rows of ids; drafted: vocabulary
    max_blocks,
    ids_stride,
    tables_stride,
    IS_KNOWN: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = o < count
    m_valid = m & (tl.load(p_is_there + o, mask=m, other=0) > 0)
    if IS_KNOWN:
        i_table = tl.load(p_rows + tl.load(p_token_row + o, mask=m, other=0), mask=m, other=0)
        b_index = tl.load(p_positions + o, mask=m, other=0) + 1
        m_valid = m_valid & (b_index < tl.load(p_num_tokens + i_table, mask=m, other=0))
        o_id = i_table * ids_stride + tl.minimum(b_index, limit - 1)
        b_id = tl.load(p_ids + o_id, mask=m_valid, other=0).to(tl.int64)
    else:
        i_table = tl.load(p_rows + o, mask=m, other=0)
        b_index = tl.load(p_num_tokens + i_table, mask=m, other=0) - 1 + step
        m_valid = m_valid & (b_index < tl.load(p_max_total + i_table, mask=m, other=0))
        b_id = tl.load(p_ids + o * ids_stride, mask=m_valid, other=0)
        b_id = tl.where((b_id >= 0) & (b_id < limit), b_id, 0)
    b_slot = slot_of(p_tables, i_table * tables_stride, b_index, m_valid, max_blocks, BLOCK_SIZE)
    tl.store(p_out + o, tl.where(m_valid, b_id, 0), mask=m)
    tl.store(p_out + count + o, tl.where(m_valid, b_index - first_index, 0), mask=m)
    tl.store(p_out + count * 2 + o, tl.where(m_valid, b_slot, 0), mask=m)
    tl.store(p_out + count * 3 + o, tl.where(m_valid, b_index + 1, 0), mask=m)
