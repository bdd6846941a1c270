"""Changes of logits before a token is chosen, on a GPU: bias, penalties, forbidden tokens.

The device reads for each row whether anything needs to be done, so one captured call serves any mix of requests.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, product, wait
from outrider.kernels.triton.launch import OVERLAPPED
from outrider.kernels.triton.sampling.sort_keys import LARGEST, load_finite

_BLOCK = 2048


def process(
    logits: Tensor,
    *,
    rows: Tensor,
    offsets: Tensor,
    lengths: Tensor,
    drafts: Tensor,
    num_logit_bias: Tensor,
    logit_bias_ids: Tensor,
    logit_bias: Tensor,
    min_length: Tensor,
    num_stop_token_ids: Tensor,
    stop_token_ids: Tensor,
    output_counts: Tensor,
    prompt_mask: Tensor,
    repetition: Tensor,
    presence: Tensor,
    frequency: Tensor,
    allowed: Tensor,
    num_bad_words: Tensor,
    bad_words: Tensor,
    token_ids: Tensor | None,
    num_prompt_tokens: Tensor,
    bias_index: Tensor | None,
    min_tokens_index: Tensor | None,
    penalty_index: Tensor | None,
    allowed_index: Tensor | None,
    bad_words_index: Tensor | None,
) -> Tensor:
    """Apply to logits [num_rows, vocab_size] fp32 every change before temperature, in the order of the index lists.

    For each row: rows, its entry in the tables; offsets, drafts that count as accepted; lengths, tokens before the one
    produced; all [num_rows] int64; drafts [num_rows, k] int64. The other tensors are tables of N entries, as
    `SamplingTable` lays them out, and token_ids [N, max_tokens] int32 of the request table, needed for bad words.
    The index lists only say whether any row needs a change; the device reads which rows do. Without any list, the
    logits themselves are returned.
    """
    if all(index is None for index in (bias_index, min_tokens_index, penalty_index, allowed_index, bad_words_index)):
        return logits
    assert bad_words_index is None or token_ids is not None, "bad words need the tokens before them"
    has_bad_words = bad_words_index is not None
    token_ids = bad_words if token_ids is None else token_ids
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    assert bad_words.shape[2] & (bad_words.shape[2] - 1) == 0, "words are powers of two"
    assert bad_words.stride()[1:] == (bad_words.shape[2], 1), "the words of a row are contiguous"
    assert drafts.shape[1] == 0 or drafts.stride(1) == 1, "drafts of a row are contiguous"
    out = torch.empty(num_rows, vocab_size, dtype=torch.float32, device=logits.device)
    if num_rows > 0:
        _process_kernel[(num_rows, triton.cdiv(vocab_size, _BLOCK))](
            logits,
            out,
            rows,
            offsets,
            lengths,
            drafts,
            num_logit_bias,
            logit_bias_ids,
            logit_bias,
            min_length,
            num_stop_token_ids,
            stop_token_ids,
            output_counts,
            prompt_mask,
            repetition,
            presence,
            frequency,
            allowed,
            num_bad_words,
            bad_words,
            token_ids,
            num_prompt_tokens,
            vocab_size,
            logits.stride(0),
            drafts.stride(0),
            logit_bias_ids.stride(0),
            logit_bias.stride(0),
            stop_token_ids.stride(0),
            output_counts.stride(0),
            prompt_mask.stride(0),
            allowed.stride(0),
            token_ids.stride(0),
            bad_words.stride(0),
            HAS_BAD_WORDS=has_bad_words,
            WORD=bad_words.shape[2],
            BLOCK=_BLOCK,
            num_warps=4,
            **OVERLAPPED,
        )
    return out


def apply_masks(logits: Tensor, words: Tensor, of_sample: Tensor, *, in_place: bool) -> Tensor:
    """-inf where the mask `of_sample` ([num_rows] int64) of `words` ([number, words] int32) has a 0; -1: none."""
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    assert words.dtype == torch.int32 and words.stride(1) == 1, f"masks are {words.dtype}, not rows of int32"
    assert 32 * words.shape[1] >= vocab_size, f"masks of {words.shape[1]} words for {vocab_size} tokens"
    out = logits if in_place else torch.empty(num_rows, vocab_size, dtype=torch.float32, device=logits.device)
    if num_rows > 0:
        _masks_kernel[(num_rows, triton.cdiv(vocab_size, _BLOCK))](
            logits,
            out,
            words,
            of_sample,
            vocab_size,
            logits.stride(0),
            out.stride(0),
            words.stride(0),
            IN_PLACE=in_place,
            BLOCK=_BLOCK,
            num_warps=4,
            **OVERLAPPED,
        )
    return out


@triton.jit
def _masks_kernel(
    p_logits,
    p_out,
    p_words,  # [number, words] int32
    p_of_sample,  # [num_rows] int64
    vocab_size,
    logits_stride,
    out_stride,
    words_stride,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o < vocab_size
    wait()
    i_mask = tl.load(p_of_sample + i_row)
    m_masked = m & (tl.zeros([BLOCK], tl.int64) + i_mask >= 0)
    b_word = tl.load(p_words + i_mask * words_stride + o // 32, mask=m_masked, other=-1)
    m_forbidden = m_masked & ((b_word >> (o % 32)) & 1 == 0)
    if IN_PLACE:
        tl.store(p_out + i_row * out_stride + o, float("-inf"), mask=m_forbidden)
    else:
        b_logits = tl.load(p_logits + i_row * logits_stride + o, mask=m, other=0.0)
        tl.store(p_out + i_row * out_stride + o, tl.where(m_forbidden, float("-inf"), b_logits), mask=m)


@triton.jit
def _at_most_largest(b):
    return tl.minimum(b, LARGEST)


@triton.jit
def _process_kernel(
    p_logits,
    p_out,
    p_rows,
    p_offsets,
    p_lengths,
    p_drafts,  # [R, k]
    p_num_bias,  # [N]
    p_bias_ids,  # [N, max_bias] int64
    p_bias,  # [N, max_bias] fp32
    p_min_length,  # [N]
    p_num_stop_ids,  # [N]
    p_stop_ids,  # [N, max_stop_ids] int64
    p_counts,  # [N, vocab_size] int32
    p_prompt_mask,  # [N, vocab_size] bool
    p_repetition,  # [N] fp32, and the next two
    p_presence,
    p_frequency,
    p_allowed,  # [N, ceil(vocab_size / 32)] int32
    p_num_bad_words,  # [N]
    p_bad_words,  # [N, max_bad_words, WORD] int32, at the right, -1 in front
    p_token_ids,  # [N, max_tokens] int32
    p_num_prompt_tokens,  # [N]
    vocab_size,
    stride,
    drafts_stride,
    bias_ids_stride,
    bias_stride,
    stop_ids_stride,
    counts_stride,
    prompt_stride,
    allowed_stride,
    ids_stride,
    words_stride,
    HAS_BAD_WORDS: tl.constexpr,
    WORD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o_id = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o_id < vocab_size
    wait()
    b = load_finite(p_logits + i_row * stride + o_id, m)
    i_table = tl.load(p_rows + i_row)
    for i in range(tl.load(p_num_bias + i_table).to(tl.int32)):
        i_id = tl.load(p_bias_ids + i_table * bias_ids_stride + i)
        bias = tl.load(p_bias + i_table * bias_stride + i)
        b = tl.where(o_id == i_id, _at_most_largest(b + bias), b)
    length, offset = tl.load(p_lengths + i_row), tl.load(p_offsets + i_row)
    if length < tl.load(p_min_length + i_table):
        for i in range(tl.load(p_num_stop_ids + i_table).to(tl.int32)):
            b = tl.where(o_id == tl.load(p_stop_ids + i_table * stop_ids_stride + i), float("-inf"), b)
    repetition = tl.load(p_repetition + i_table)
    presence, frequency = tl.load(p_presence + i_table), tl.load(p_frequency + i_table)
    if (repetition != 1.0) | (presence != 0.0) | (frequency != 0.0):
        b_count = tl.load(p_counts + i_table * counts_stride + o_id, mask=m, other=0)
        for i in range(offset.to(tl.int32)):
            b_count += (o_id == tl.load(p_drafts + i_row * drafts_stride + i)).to(tl.int32)
        m_output = b_count > 0
        m_seen = m_output | (tl.load(p_prompt_mask + i_table * prompt_stride + o_id, mask=m, other=0) != 0)
        b_repeated = tl.where(b > 0, tl.math.div_rn(b, repetition), product(b, repetition))
        b = tl.where(m_seen, b_repeated, b)
        b = b - product(b_count.to(tl.float32), frequency)
        b = _at_most_largest(b - tl.where(m_output, presence, 0.0))
    b_word = tl.load(p_allowed + i_table * allowed_stride + o_id // 32, mask=m, other=0)
    b = tl.where(((b_word >> (o_id % 32)) & 1) != 0, b, float("-inf"))
    if HAS_BAD_WORDS:
        # the tokens before the one produced, with those of `drafts` that count; -2 where the output has not begun
        o = tl.arange(0, WORD)
        b_place = length - (WORD - 1) + o
        m_output = (o < WORD - 1) & (b_place >= tl.load(p_num_prompt_tokens + i_table)) & (b_place >= 0)
        b_draft = b_place - (length - offset)
        m_draft = m_output & (b_draft >= 0)
        b_tail = tl.load(p_token_ids + i_table * ids_stride + b_place, mask=m_output & (b_draft < 0), other=-2)
        b_tail = tl.where(m_draft, tl.load(p_drafts + i_row * drafts_stride + b_draft, mask=m_draft, other=0), b_tail)
        for i in range(tl.load(p_num_bad_words + i_table).to(tl.int32)):
            p_word = p_bad_words + i_table * words_stride + i * WORD
            b_head = tl.load(p_word + o)
            m_begun = (b_head < 0) | (b_head == b_tail) | (o == WORD - 1)
            if tl.min(m_begun.to(tl.int32), axis=0) > 0:
                b = tl.where(o_id == tl.load(p_word + WORD - 1), float("-inf"), b)
    tl.store(p_out + i_row * vocab_size + o_id, b, mask=m)
