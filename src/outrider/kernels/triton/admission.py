"""Requests that start or resume: one launch spreads a record over their rows of the request table.

A row is shared out to several programs: the first fills lengths, parameters, lists and block tables, the others a
segment of the vocabulary each, and the row's tokens among them. A program clears what it owns before it writes there.
Integers and copied bits only, so results equal those of `reference/admission.py` exactly.

Legend: A rows that start, B new blocks, N rows of the table.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from itertools import accumulate

import torch
import triton
import triton.language as tl

from outrider.kernels.interface.step import AdmissionParts, AdmissionRecord, TableMemory

_BLOCK = 1024
_SEGMENT = 8192
"""Tokens of the vocabulary in a program's segment."""


def admit(memory: TableMemory, record: AdmissionRecord) -> None:
    """Fill the rows that start or resume, and add new blocks."""
    num_rows, num_blocks = (record.sizes[AdmissionParts._fields.index(name)] for name in ("rows", "block_ids"))
    starts = list(accumulate(record.sizes[:-1], initial=0))
    num_wide, num_narrow, vocab_size = memory.wide.shape[0], memory.narrow.shape[0], memory.output_counts.shape[1]
    assert max(memory.lengths.shape[0], num_wide, num_narrow) <= _BLOCK, "a row's parameters are written at once"
    assert memory.lists.is_contiguous() and memory.block_tables.is_contiguous()
    assert memory.prompt_mask.is_contiguous() and memory.output_counts.is_contiguous()
    num_parts = 1 + triton.cdiv(vocab_size, _SEGMENT)
    # the host does not know how many of the new blocks are for rows that do not start: programs without any end at once
    num_programs = num_rows * num_parts + triton.cdiv(num_blocks, _BLOCK)
    if num_programs == 0:
        return
    _admit_kernel[(num_programs,)](
        record.data,
        record.data.view(torch.int32),
        memory.lengths,
        memory.token_ids,
        memory.block_tables,
        memory.wide,
        memory.narrow,
        memory.lists,
        memory.neutral_lists,
        memory.prompt_mask.view(torch.uint8),
        memory.output_counts,
        num_rows,
        num_blocks,
        *starts[1:],
        memory.lengths.stride(0),
        memory.token_ids.stride(0),
        memory.block_tables.stride(0),
        memory.wide.stride(0),
        memory.narrow.stride(0),
        memory.lengths.shape[0],
        num_wide,
        num_narrow,
        memory.lists.shape[1],
        vocab_size,
        num_parts,
        SEGMENT=_SEGMENT,
        BLOCK=_BLOCK,
    )


_VARYING = ["num_rows", "num_blocks", "o_prompts", "o_list_index", "o_token_starts", "o_block_starts", "o_lengths"]
_VARYING += ["o_parameters", "o_places", "o_block_ids", "o_ids", "o_lists"]


@triton.jit(do_not_specialize=_VARYING)
def _admit_kernel(
    p_record,
    p_words,  # the record as int32
    p_lengths,
    p_token_ids,
    p_tables,
    p_wide,
    p_narrow,
    p_lists,
    p_neutral,
    p_mask,
    p_counts,
    num_rows,
    num_blocks,
    o_prompts,  # places of the parts in the record
    o_list_index,
    o_token_starts,
    o_block_starts,
    o_lengths,
    o_parameters,
    o_places,
    o_block_ids,
    o_ids,
    o_lists,
    lengths_stride,
    ids_stride,
    tables_stride,
    wide_stride,
    narrow_stride,
    num_lengths,
    num_wide,
    num_narrow,
    num_words,
    vocab_size,
    num_parts,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_program = tl.program_id(0)
    if i_program >= num_rows * num_parts:  # blocks of rows that do not start
        o_first = tl.load(p_record + o_block_starts + num_rows) + (i_program - num_rows * num_parts) * BLOCK
        _add_blocks(p_record, p_tables, o_places, o_block_ids, o_first, num_blocks, BLOCK)
    else:
        i_entry, i_part = i_program // num_parts, i_program % num_parts
        i_row = tl.load(p_record + i_entry)
        if i_part == 0:
            _copy(p_record, o_lengths + i_entry * num_lengths, p_lengths + i_row, lengths_stride, num_lengths, BLOCK)
            o_own = o_parameters + i_entry * (num_wide + num_narrow // 2)
            _copy(p_record, o_own, p_wide + i_row, wide_stride, num_wide, BLOCK)
            _copy(p_words, 2 * (o_own + num_wide), p_narrow + i_row, narrow_stride, num_narrow, BLOCK)
            i_list = tl.load(p_record + o_list_index + i_entry)
            _fill_lists(p_words + 2 * o_lists, p_neutral, p_lists + i_row * num_words, i_list, num_words, BLOCK)
            _clear(p_tables + i_row * tables_stride, tables_stride, BLOCK)
            tl.debug_barrier()
            o_first = tl.load(p_record + o_block_starts + i_entry)
            o_end = tl.load(p_record + o_block_starts + i_entry + 1)
            for o_block in range(o_first, o_end, BLOCK):
                _add_blocks(p_record, p_tables, o_places, o_block_ids, o_block, o_end, BLOCK)
        else:
            o_first = tl.load(p_record + o_token_starts + i_entry)
            num_tokens = tl.load(p_record + o_token_starts + i_entry + 1) - o_first
            num_prompt = tl.load(p_record + o_prompts + i_entry)
            p_ids = p_record + o_ids + o_first
            p_own_mask, p_own_counts = p_mask + i_row * vocab_size, p_counts + i_row * vocab_size
            first_id = (i_part - 1) * SEGMENT
            end_id = tl.minimum(first_id + SEGMENT, vocab_size)
            _clear(p_own_mask + first_id, end_id - first_id, BLOCK)
            _clear(p_own_counts + first_id, end_id - first_id, BLOCK)
            tl.debug_barrier()
            _mark_tokens(p_ids, p_own_mask, p_own_counts, num_tokens, num_prompt, first_id, end_id, BLOCK)
            o_begin, step = (i_part - 1) * BLOCK, (num_parts - 1) * BLOCK
            _write_tokens(p_ids, p_token_ids + i_row * ids_stride, o_begin, num_tokens, step, BLOCK)


@triton.jit
def _clear(p, count, BLOCK: tl.constexpr):
    o = tl.arange(0, BLOCK)
    for i in range(0, count, BLOCK):
        tl.store(p + i + o, tl.zeros([BLOCK], p.dtype.element_ty), mask=i + o < count)


@triton.jit
def _fill_lists(p_from, p_neutral, p_to, i_list, num_words, BLOCK: tl.constexpr):
    """A row's lists from the record, or neutral ones if it has none there."""
    o = tl.arange(0, BLOCK)
    num_own = tl.where(i_list < 0, 0, num_words)
    for i in range(0, num_words, BLOCK):
        m, m_own = i + o < num_words, i + o < num_own
        b_neutral = tl.load(p_neutral + i + o, mask=m, other=0)
        b_own = tl.load(p_from + i_list * num_words + i + o, mask=m_own, other=0)
        tl.store(p_to + i + o, tl.where(m_own, b_own, b_neutral), mask=m)


@triton.jit
def _mark_tokens(p_ids, p_mask, p_counts, num_tokens, num_prompt, first_id, end_id, BLOCK: tl.constexpr):
    """Tokens of the prompt, and counts of those of the output, from `first_id` to `end_id`."""
    o = tl.arange(0, BLOCK)
    for i in range(0, num_tokens, BLOCK):
        m = i + o < num_tokens
        b_id = tl.load(p_ids + i + o, mask=m, other=0)
        m_own = m & (b_id >= first_id) & (b_id < end_id)
        tl.store(p_mask + b_id, tl.full([BLOCK], 1, tl.uint8), mask=m_own & (i + o < num_prompt))
        m_output = m_own & (i + o >= num_prompt)
        tl.atomic_add(p_counts + b_id, tl.full([BLOCK], 1, tl.int32), mask=m_output, sem="relaxed")


@triton.jit
def _write_tokens(p_ids, p_token_ids, o_begin, num_tokens, step, BLOCK: tl.constexpr):
    """Every block of tokens that begins `step` after the one before, from `o_begin`."""
    o = tl.arange(0, BLOCK)
    for i in range(o_begin, num_tokens, step):
        m = i + o < num_tokens
        b_id = tl.load(p_ids + i + o, mask=m, other=0)
        tl.store(p_token_ids + i + o, b_id.to(tl.int32), mask=m)


@triton.jit
def _copy(p_from, o_from, p_to, to_stride, count, BLOCK: tl.constexpr):
    """`count` numbers, at most a block, to places `to_stride` apart."""
    o = tl.arange(0, BLOCK)
    tl.store(p_to + o * to_stride, tl.load(p_from + o_from + o, mask=o < count, other=0), mask=o < count)


@triton.jit
def _add_blocks(p_record, p_tables, o_places, o_block_ids, o_first, end, BLOCK: tl.constexpr):
    """A program's share of the new blocks, from `o_first` to `end`."""
    o = o_first + tl.arange(0, BLOCK)
    b_place = tl.load(p_record + o_places + o, mask=o < end, other=0)
    b_id = tl.load(p_record + o_block_ids + o, mask=o < end, other=0)
    tl.store(p_tables + b_place, b_id.to(tl.int32), mask=o < end)
