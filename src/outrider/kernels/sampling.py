"""Choosing tokens on a GPU: same names as `reference/sampling.py` where a row of logits is worked on as a whole.

A row is cut into chunks for many CTAs; what they find is joined by maxima and by sums of integers, so nothing depends
on an order, on the other rows or on how a row was cut. Greedy rows cost one reading of the logits and get no noise.
What is done to rows that truncate stands in `truncation.py`; logits may hold NaN and infinities (`order.finite`).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.logprobs import hash_rows, logprobs
from outrider.kernels.native import launch_dependents, rough_exp2, wait
from outrider.kernels.noise import gumbel_of_ids
from outrider.kernels.order import NOTHING, finite, id_of, key_of, largest_of, load_finite
from outrider.kernels.processors import process, verify
from outrider.kernels.truncation import choose_random, look_at_sample

__all__ = ["argmax", "choose", "draft_choose", "hash_rows", "logprobs", "process", "verify"]

_FEW_ROWS = 32

_TILE = 256
"""Logits that a warp looks at a time."""


def chunk_size(num_rows: int) -> int:
    """Logits of a CTA, which is one warp; those of few rows are spread over more of them."""
    return 4 * _TILE if num_rows <= _FEW_ROWS else 16 * _TILE


def argmax(values: Tensor) -> Tensor:
    """The lowest id among the largest values: [num_rows] int64 of [num_rows, vocab_size] fp32; NaN counts as -inf.

    A row of -inf only gives 0.
    """
    out = torch.empty(values.shape[0], dtype=torch.int64, device=values.device)
    if values.shape[0] > 0:
        keys, _ = _chunk_maxima(values, None, None)
        _best_kernel[(values.shape[0],)](
            keys, out, keys.shape[1], BLOCK=triton.next_power_of_2(keys.shape[1]), num_warps=1, launch_pdl=True
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
    choices: Tensor,
    random_index: Tensor | None,
    truncation_index: Tensor | None,
) -> Tensor:
    """A token for each row: [num_rows] int64 of processed logits [num_rows, vocab_size] fp32.

    rows [num_rows] int64 say which entry of the columns [num_table_rows] belongs to a row: temperature, top_p, min_p
    fp32, top_k, seeds, choices int64. positions [num_rows] int64. Rows of temperature 0 take the first token in order;
    of the others, `truncate` of the reference says which tokens are kept, and the noise of (seed, choice, position)
    which of them is chosen. The index lists only say whether any row is random: which, is read on the device.
    """
    if random_index is None or logits.shape[0] == 0:
        return argmax(logits)
    columns = (temperature, top_k, top_p, min_p, seeds, choices)
    keys, sums = _chunk_maxima(logits, rows, temperature)
    assert sums is not None
    sample = look_at_sample(logits, rows=rows, positions=positions, columns=columns)
    return choose_random(logits, sample, keys, sums, rows=rows, positions=positions, columns=columns)


def _chunk_maxima(values: Tensor, rows: Tensor | None, temperature: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Largest key of each chunk of each row, [num_rows, num_chunks] int64; and about how much mass it has, as
    [num_rows, num_chunks, 2] fp32: a logit, and the sum of exp((logits - it) / temperature)."""
    num_rows, vocab_size = values.shape
    assert values.dtype == torch.float32 and values.stride(1) == 1, f"logits are {values.dtype}, not rows of float32"
    chunk = chunk_size(num_rows)
    shape = (num_rows, triton.cdiv(vocab_size, chunk))
    keys = torch.empty(shape, dtype=torch.int64, device=values.device)
    sums = None if rows is None else torch.empty(*shape, 2, dtype=torch.float32, device=values.device)
    _maximum_kernel[shape[::-1]](
        values,
        keys,
        keys if sums is None else sums,
        keys if rows is None else rows,
        values if temperature is None else temperature,
        vocab_size,
        values.stride(0),
        STEPS=chunk // _TILE,
        TILE=_TILE,
        WITH_SUMS=sums is not None,
        num_warps=1,
        launch_pdl=True,
    )
    return keys, sums


@triton.jit
def _maximum_kernel(
    p_values,  # [R, vocab_size] fp32
    p_keys,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, 2] fp32
    p_rows,  # [R] int64
    p_temperature,  # [N] fp32
    vocab_size,
    stride,
    STEPS: tl.constexpr,
    TILE: tl.constexpr,
    WITH_SUMS: tl.constexpr,
):
    """With sums, the kernel launched next may read the logits at once: it begins when these are there."""
    if not WITH_SUMS:
        launch_dependents()
    wait()
    if WITH_SUMS:
        launch_dependents()
    i_chunk, i_row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i_place = i_row * tl.num_programs(0) + i_chunk
    o_lane = tl.arange(0, 32)
    # a lane has four neighbours eight times
    o = (tl.arange(0, TILE // 128)[:, None, None] * 32 + o_lane[None, :, None]) * 4 + tl.arange(0, 4)[None, None, :]
    first = i_chunk * (STEPS * TILE)
    b_best, b_sum = tl.full([32], float("-inf"), tl.float32), tl.zeros([32], tl.float32)
    b_anchor = tl.full([32], -1e38, tl.float32)
    b_id = first + o_lane * 4
    slope = 1.0
    if WITH_SUMS:
        temperature = tl.load(p_temperature + tl.load(p_rows + i_row))
        slope = 1.4426950408889634 / tl.where(temperature > 0, temperature, 1.0)
    for step in range(STEPS):
        o_id = first + step * TILE + o
        b_raw = tl.load(p_values + i_row * stride + o_id, mask=o_id < vocab_size, other=float("-inf"))
        b = finite(b_raw)
        b_top = tl.max(tl.max(b, axis=2), axis=0)
        b_first = tl.min(tl.min(tl.where(b == b_top[None, :, None], o_id, 0x7FFFFFFF), axis=2), axis=0)
        b_id = tl.where(b_top > b_best, b_first, b_id)
        b_best = tl.maximum(b_best, b_top)
        if WITH_SUMS:
            b_old = b_anchor
            b_anchor = tl.maximum(b_anchor, b_top)
            b_weight = rough_exp2((b_raw - b_anchor[None, :, None]) * slope)  # a NaN or an infinity stays
            b_sum = b_sum * rough_exp2((b_old - b_anchor) * slope) + tl.sum(tl.sum(b_weight, axis=2), axis=0)
    best = tl.max(b_best, axis=0)
    tl.store(p_keys + i_place, key_of(best, tl.min(tl.where(b_best == best, b_id, 0x7FFFFFFF), axis=0)))
    if WITH_SUMS:
        anchor = tl.max(b_anchor, axis=0)
        tl.store(p_sums + i_place * 2, anchor)
        tl.store(p_sums + i_place * 2 + 1, tl.sum(b_sum * rough_exp2((b_anchor - anchor) * slope), axis=0))


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
    choices: Tensor,
    has_random_rows: bool,
) -> Tensor:
    """Target ids of drafts, [num_rows] int64: argmax of logits / temperature + the target's own noise.

    logits [num_rows, draft_vocab_size] fp32, target_ids [draft_vocab_size] int64; rows, positions and the columns as in
    `choose`. Rows of temperature 0 have neither. Ties go to the lower place in the draft vocabulary. Which rows are
    random is read on the device, so has_random_rows says nothing here.
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
        choices,
        vocab_size,
        logits.stride(0),
        BLOCK=_DRAFT_BLOCK,
        num_warps=4,
        launch_pdl=True,
    )
    _best_draft_kernel[(num_rows,)](
        keys, target_ids, out, num_chunks, BLOCK=triton.next_power_of_2(num_chunks), num_warps=1, launch_pdl=True
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
    p_choices,
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
        seed, choice = tl.load(p_seeds + i_table), tl.load(p_choices + i_table)
        b_noise = gumbel_of_ids(seed, choice, tl.load(p_positions + i_row), tl.load(p_target_ids + o, mask=m, other=0))
        b = finite(tl.math.div_rn(b, temperature) + b_noise)
    tl.store(p_keys + i_row * tl.num_programs(1) + i_chunk, tl.max(tl.where(m, key_of(b, o), NOTHING), axis=0))


@triton.jit
def _best_draft_kernel(p_keys, p_target_ids, p_out, num_keys, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    wait()
    i_draft = id_of(largest_of(p_keys + i_row * num_keys, num_keys, BLOCK))
    tl.store(p_out + i_row, tl.load(p_target_ids + i_draft))
