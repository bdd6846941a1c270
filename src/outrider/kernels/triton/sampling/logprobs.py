"""Log-probabilities and ranks of chosen, given and most likely tokens, on a GPU.

The vocabulary is cut into segments of a fixed size, whatever the batch, so the only floating-point sum of a row has one
order: within a segment the order of the block, then the order of the segments.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.sampling import Logprobs
from outrider.kernels.triton.intrinsics import exp, launch_dependents, log, wait
from outrider.kernels.triton.launch import OVERLAPPED
from outrider.kernels.triton.sampling.sort_keys import NOTHING, id_of, key_of, load_finite, logit_of

_SEGMENT = 2048
"""Logits of a program."""

_SUMS = tl.constexpr(2)
"""Numbers kept for each segment, fp32."""
_LARGEST = tl.constexpr(0)
"""Its largest logit."""
_SUM = tl.constexpr(1)
"""Sum of exp(logit - largest)."""


def logprobs(logits: Tensor, token_ids: Tensor, *, num_top: int, given_ids: Tensor | None = None) -> Logprobs:
    """Log-probabilities of `token_ids` [num_rows] int64, of the `num_top` most likely tokens and of `given_ids`.

    logits [num_rows, vocab_size] fp32, raw: NaN counts as -inf, +inf as the largest number; given_ids [num_rows,
    num_given] int64. At most vocab_size top tokens are returned; the first n of them are the same for every num_top.
    """
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    num_top = min(num_top, vocab_size)
    num_given = 0 if given_ids is None else given_ids.shape[1]
    given_ids = token_ids if given_ids is None else given_ids.contiguous()
    num_segments = triton.cdiv(vocab_size, _SEGMENT)

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    asked, asked_ranks = (empty(num_rows, 1 + num_given, dtype=dtype) for dtype in (torch.float32, torch.int64))
    top_ids, top_logprobs = (empty(num_rows, num_top, dtype=dtype) for dtype in (torch.int64, torch.float32))
    if num_rows > 0:
        sums = empty(num_rows, num_segments, _SUMS.value, dtype=torch.float32)
        before = empty(num_rows, 1 + num_given, num_segments, dtype=torch.int32)
        keys = empty(num_rows, num_segments, num_top, dtype=torch.int64)
        _segment_kernel[(num_rows, num_segments)](
            logits,
            token_ids,
            given_ids,
            sums,
            before,
            keys,
            vocab_size,
            logits.stride(0),
            num_given,
            num_top,
            BLOCK=_SEGMENT,
            num_warps=4,
            **OVERLAPPED,
        )
        _logprobs_kernel[(num_rows,)](
            logits,
            token_ids,
            given_ids,
            sums,
            before,
            keys,
            asked,
            asked_ranks,
            top_ids,
            top_logprobs,
            logits.stride(0),
            num_segments,
            num_given,
            num_top,
            SEGMENTS=triton.next_power_of_2(num_segments),
            KEYS=triton.next_power_of_2(max(num_segments * num_top, 1)),
            num_warps=4,
            **OVERLAPPED,
        )
    return Logprobs(
        chosen=asked[:, 0],
        ranks=asked_ranks[:, 0],
        top_ids=top_ids,
        top_logprobs=top_logprobs,
        given=asked[:, 1:],
        given_ranks=asked_ranks[:, 1:],
    )


@triton.jit
def _asked_id(p_token_ids, p_given_ids, i_row, i, num_given):
    """The chosen token, then the given ones."""
    token_id = tl.load(p_token_ids + i_row)
    if i > 0:
        token_id = tl.load(p_given_ids + i_row * num_given + i - 1)
    return token_id


@triton.jit(do_not_specialize=["num_given", "num_top"])
def _segment_kernel(
    p_logits,
    p_token_ids,
    p_given_ids,
    p_sums,  # [R, num_segments, _SUMS] fp32
    p_before,  # [R, 1 + num_given, num_segments] int32: tokens before the chosen and the given ones
    p_keys,  # [R, num_segments, num_top] int64: first keys
    vocab_size,
    stride,
    num_given,
    num_top,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    i_row, i_segment = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_id = i_segment * BLOCK + tl.arange(0, BLOCK)
    m = o_id < vocab_size
    i_place = i_row * tl.num_programs(1) + i_segment
    p_row = p_logits + i_row * stride
    wait()
    b = load_finite(p_row + o_id, m)
    largest = tl.max(b, axis=0)
    tl.store(p_sums + i_place * _SUMS + _LARGEST, largest)
    b_below = b - tl.where(largest == float("-inf"), 0.0, largest)
    tl.store(p_sums + i_place * _SUMS + _SUM, tl.sum(exp(b_below), axis=0))
    for i in range(1 + num_given):
        token_id = _asked_id(p_token_ids, p_given_ids, i_row, i, num_given)
        asked = load_finite(p_row + token_id, True)
        m_before = (b > asked) | ((b == asked) & (o_id < token_id))
        i_before = (i_row * (1 + num_given) + i) * tl.num_programs(1) + i_segment
        tl.store(p_before + i_before, tl.sum(m_before.to(tl.int32), axis=0))
    b_key = tl.where(m, key_of(b, o_id), NOTHING)
    for i in range(num_top):
        best = tl.max(b_key, axis=0)
        tl.store(p_keys + i_place * num_top + i, best)
        b_key = tl.where(b_key == best, NOTHING, b_key)


@triton.jit(do_not_specialize=["num_segments", "num_given", "num_top"])
def _logprobs_kernel(
    p_logits,
    p_token_ids,
    p_given_ids,
    p_sums,
    p_before,
    p_keys,
    p_asked,  # [R, 1 + num_given] fp32
    p_asked_ranks,  # likewise int64
    p_top_ids,
    p_top_logprobs,
    stride,
    num_segments,
    num_given,
    num_top,
    SEGMENTS: tl.constexpr,
    KEYS: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, SEGMENTS)
    m = o < num_segments
    wait()
    p_sum = p_sums + (i_row * num_segments + o) * _SUMS
    b_largest = tl.load(p_sum + _LARGEST, mask=m, other=float("-inf"))
    largest = tl.max(b_largest, axis=0)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    b_sum = tl.load(p_sum + _SUM, mask=m, other=0.0) * exp(b_largest - largest)
    log_total = log(tl.maximum(tl.sum(b_sum, axis=0), 1e-30))  # at least 1, except for a row of -inf
    for i in range(1 + num_given):
        i_asked = i_row * (1 + num_given) + i
        token_id = _asked_id(p_token_ids, p_given_ids, i_row, i, num_given)
        asked = load_finite(p_logits + i_row * stride + token_id, True)
        tl.store(p_asked + i_asked, (asked - largest) - log_total)
        b_before = tl.load(p_before + i_asked * num_segments + o, mask=m, other=0)
        tl.store(p_asked_ranks + i_asked, tl.sum(b_before, axis=0).to(tl.int64) + 1)
    o_key = tl.arange(0, KEYS)
    num_keys = num_segments * num_top
    b_key = tl.load(p_keys + i_row * num_keys + o_key, mask=o_key < num_keys, other=NOTHING)
    for i in range(num_top):
        best = tl.max(b_key, axis=0)
        tl.store(p_top_ids + i_row * num_top + i, id_of(best))
        tl.store(p_top_logprobs + i_row * num_top + i, (logit_of(best) - largest) - log_total)
        b_key = tl.where(b_key == best, NOTHING, b_key)
