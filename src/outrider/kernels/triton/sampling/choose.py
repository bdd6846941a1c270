"""Choosing tokens on a GPU: the functions of `reference/sampling` that choose from a whole row of logits.

A row is cut into chunks for many CTAs; their results are joined by maxima and by sums of integers, so nothing depends
on an order, on the other rows or on how a row was cut. Greedy rows read the logits once and get no noise.
`topk_topp.py` samples the rows that truncate; logits may hold NaN and infinities (`order.finite`).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED
from outrider.kernels.triton.sampling.noise import gumbel_of_ids
from outrider.kernels.triton.sampling.row_max import load_first, read_chunk
from outrider.kernels.triton.sampling.sort_keys import NOTHING, finite, id_of, key_of, largest_of, load_finite
from outrider.kernels.triton.sampling.topk_topp import RowParams, choose_random

_FEW_ROWS = 32

_TILE = 256
"""Logits that a warp reads at a time."""


def argmax(values: Tensor) -> Tensor:
    """The lowest id among the largest values: [num_rows] int64 of [num_rows, vocab_size] fp32; NaN counts as -inf.

    A row of -inf only gives 0.
    """
    num_rows, vocab_size = values.shape
    assert values.dtype == torch.float32 and values.stride(1) == 1, f"logits are {values.dtype}, not rows of float32"
    out = torch.empty(num_rows, dtype=torch.int64, device=values.device)
    if num_rows > 0:
        steps = 4 if num_rows <= _FEW_ROWS else 16
        num_chunks = triton.cdiv(vocab_size, steps * _TILE)
        keys = torch.empty(num_rows, num_chunks, dtype=torch.int64, device=values.device)
        _maximum_kernel[(num_chunks, num_rows)](
            values, keys, vocab_size, values.stride(0), STEPS=steps, TILE=_TILE, num_warps=1, **OVERLAPPED
        )
        _best_kernel[(num_rows,)](
            keys, out, num_chunks, BLOCK=triton.next_power_of_2(num_chunks), num_warps=1, **OVERLAPPED
        )
    return out


def choose(
    logits: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    completion_indices: Tensor,
    random_index: Tensor | None,
    truncation_index: Tensor | None,
) -> Tensor:
    """A token for each row: [num_rows] int64 of processed logits [num_rows, vocab_size] fp32.

    rows [num_rows] int64 say which entry of the columns [num_table_rows] belongs to a row: temperature, top_p, min_p
    fp32, top_k, seeds, completion_indices int64. positions [num_rows] int64. Rows of temperature 0 take the first token
    in order; for the others, `truncate` of the reference defines the tokens that are kept, and the noise of (seed,
    completion index, position) selects one of them. The index lists only say whether any row is random; the
    device reads which rows are.
    """
    if random_index is None or logits.shape[0] == 0:
        return argmax(logits)
    return choose_random(
        logits,
        RowParams(
            rows=rows,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seeds=seeds,
            completion_indices=completion_indices,
            positions=positions,
        ),
    )


@triton.jit
def _maximum_kernel(
    p_values,  # [R, vocab_size] fp32
    p_keys,  # [R, num_chunks] int64
    vocab_size,
    stride,
    STEPS: tl.constexpr,
    TILE: tl.constexpr,
):
    launch_dependents()
    i_chunk, i_row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    wait()
    p_row, first = p_values + i_row * stride, i_chunk * (STEPS * TILE)
    b_first = load_first(p_row, first, vocab_size, TILE)
    key, _, _ = read_chunk(b_first, p_row, first, vocab_size, 1.0, STEPS, TILE, False)
    tl.store(p_keys + i_row * tl.num_programs(0) + i_chunk, key)


@triton.jit
def _best_kernel(p_keys, p_out, num_keys, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    wait()
    tl.store(p_out + i_row, id_of(largest_of(p_keys + i_row * num_keys, num_keys, BLOCK)))


def draft_choose(
    logits: Tensor,
    target_ids: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    temperature: Tensor,
    seeds: Tensor,
    completion_indices: Tensor,
    has_random_rows: bool,
) -> Tensor:
    """Target ids of drafts, [num_rows] int64: argmax of logits / temperature + the target's own noise.

    logits [num_rows, draft_vocab_size] fp32, target_ids [draft_vocab_size] int64; rows, positions and the columns as in
    `choose`. Rows of temperature 0 use neither temperature nor noise. Ties go to the lower place in the draft
    vocabulary. The device reads which rows are random, so has_random_rows is ignored.
    """
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    out = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows == 0:
        return out
    num_chunks = triton.cdiv(vocab_size, _DRAFT_BLOCK)
    keys = torch.empty(num_rows, num_chunks, dtype=torch.int64, device=logits.device)
    _draft_kernel[(num_rows, num_chunks)](
        logits,
        target_ids,
        keys,
        rows,
        positions,
        temperature,
        seeds,
        completion_indices,
        vocab_size,
        logits.stride(0),
        BLOCK=_DRAFT_BLOCK,
        num_warps=4,
        **OVERLAPPED,
    )
    _best_draft_kernel[(num_rows,)](
        keys, target_ids, out, num_chunks, BLOCK=triton.next_power_of_2(num_chunks), num_warps=1, **OVERLAPPED
    )
    return out


_DRAFT_BLOCK = 1024


@triton.jit
def _draft_kernel(
    p_logits,
    p_target_ids,
    p_keys,  # [R, num_chunks] int64
    p_rows,
    p_positions,
    p_temperature,
    p_seeds,
    p_completions,
    vocab_size,
    stride,
    BLOCK: tl.constexpr,
):
    launch_dependents()
    i_row, i_chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o = i_chunk * BLOCK + tl.arange(0, BLOCK)
    m = o < vocab_size
    wait()
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    b = load_finite(p_logits + i_row * stride + o, m)
    if temperature > 0:
        seed, completion = tl.load(p_seeds + i_table), tl.load(p_completions + i_table)
        b_noise = gumbel_of_ids(
            seed, completion, tl.load(p_positions + i_row), tl.load(p_target_ids + o, mask=m, other=0)
        )
        b = finite(tl.math.div_rn(b, temperature) + b_noise)
    tl.store(p_keys + i_row * tl.num_programs(1) + i_chunk, tl.max(tl.where(m, key_of(b, o), NOTHING), axis=0))


@triton.jit
def _best_draft_kernel(p_keys, p_target_ids, p_out, num_keys, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    wait()
    i_draft = id_of(largest_of(p_keys + i_row * num_keys, num_keys, BLOCK))
    tl.store(p_out + i_row, tl.load(p_target_ids + i_draft))
