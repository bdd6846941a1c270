"""Verifies drafts on a GPU: which of them are accepted, and the tokens that a step emits. One kernel of integers."""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.sampling import SYNTHETIC_SIZE, SYNTHETIC_STRIDE, SyntheticAcceptance, Verified
from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED

_BLOCK = 32
"""Rows of a program."""


def verify(
    sampled_ids: Tensor,
    *,
    sample_starts: Tensor,
    num_samples: Tensor,
    drafts: Tensor,
    num_tokens_left: Tensor,
    rows: Tensor | None = None,
    synthetic: SyntheticAcceptance | None = None,
) -> Verified:
    """Tokens that each request emits; the interface describes the arguments. Runs one kernel, synthetic or not."""
    assert synthetic is None or rows is not None, "synthetic acceptance is keyed by the request"
    unread = num_tokens_left  # placeholder for tables that are not read
    tables = synthetic or SyntheticAcceptance(numbers=unread, rates=unread, seeds=unread, lengths=unread)
    num_rows, num_places = drafts.shape[0], drafts.shape[1] + 1
    token_ids = torch.empty(num_rows, num_places, dtype=torch.int64, device=drafts.device)
    counts = torch.empty(2, num_rows, dtype=torch.int64, device=drafts.device)
    if num_rows > 0:
        _verify_kernel[(triton.cdiv(num_rows, _BLOCK),)](
            sampled_ids,
            sample_starts,
            num_samples,
            drafts,
            num_tokens_left,
            num_tokens_left if rows is None else rows,
            tables.numbers,
            tables.rates,
            tables.seeds,
            tables.lengths,
            token_ids,
            counts,
            num_rows,
            sampled_ids.shape[0],
            drafts.stride(0),
            IS_DRAWN=synthetic is not None,
            SIZE=SYNTHETIC_SIZE,
            STRIDE=SYNTHETIC_STRIDE,
            PLACES=num_places,
            BLOCK=_BLOCK,
            num_warps=1,
            **OVERLAPPED,
        )
    return Verified(token_ids, counts[0], counts[1])


@triton.jit(do_not_specialize=["num_rows", "num_all_samples"])
def _verify_kernel(
    p_sampled,
    p_starts,
    p_num_samples,
    p_drafts,
    p_num_tokens_left,
    p_rows,
    p_numbers,  # [SIZE] fp32; this and the next three are read if acceptance is drawn
    p_rates,  # [k] fp32
    p_seeds,  # [N] int64
    p_lengths,  # [N] int64
    p_token_ids,  # [R, PLACES]
    p_counts,  # [2, R]: tokens, accepted
    num_rows,
    num_all_samples,
    drafts_stride,
    IS_DRAWN: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    o_row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = o_row < num_rows
    wait()
    b_start = tl.load(p_starts + o_row, mask=m, other=0)
    b_samples = tl.load(p_num_samples + o_row, mask=m, other=0)
    b_drafts = tl.maximum(b_samples - 1, 0)
    b_equal = tl.zeros([BLOCK], tl.int64)
    if IS_DRAWN:
        i_table = tl.load(p_rows + o_row, mask=m, other=0)
        b_place = tl.load(p_seeds + i_table, mask=m, other=0) * STRIDE + tl.load(p_lengths + i_table, mask=m, other=0)
        b_number = tl.load(p_numbers + (b_place & (SIZE - 1)), mask=m, other=0.0)
    for i in tl.static_range(PLACES - 1):
        m_here = m & (b_start + i < num_all_samples)
        b_sampled = tl.load(p_sampled + b_start + i, mask=m_here, other=0)
        b_draft = tl.load(p_drafts + o_row * drafts_stride + i, mask=m, other=0)
        m_kept = b_draft == b_sampled
        if IS_DRAWN:
            m_kept = b_number < tl.load(p_rates + i)
        b_equal += ((b_equal == i) & (i < b_drafts) & m_kept).to(tl.int64)
    b_tokens_left = tl.maximum(tl.load(p_num_tokens_left + o_row, mask=m, other=0), 0)
    b_tokens = tl.where(b_samples > 0, tl.minimum(b_equal + 1, b_tokens_left), 0)
    for i in tl.static_range(PLACES):
        m_here = m & (b_start + i < num_all_samples) & (i < b_tokens)
        b_sampled = tl.load(p_sampled + b_start + i, mask=m_here, other=0)
        if IS_DRAWN and i < PLACES - 1:
            m_draft = m_here & (i < b_equal)
            b_draft = tl.load(p_drafts + o_row * drafts_stride + i, mask=m_draft, other=0)
            b_sampled = tl.where(m_draft, b_draft, b_sampled)
        tl.store(p_token_ids + o_row * PLACES + i, b_sampled, mask=m)
    tl.store(p_counts + o_row, b_tokens, mask=m)
    tl.store(p_counts + num_rows + o_row, tl.minimum(b_equal, b_tokens), mask=m)
