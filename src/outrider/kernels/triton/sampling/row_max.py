"""The first reading of a row of logits, one warp per chunk: the largest logit and the approximate mass.

A row is cut into chunks for many CTAs; their results are joined by maxima. Does not depend on sampling or its kernels.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import rough_exp2
from outrider.kernels.triton.sampling.sort_keys import finite, key_of


@triton.jit
def _ids_of_tile(TILE: tl.constexpr):
    """Places of the logits of a tile; each lane has groups of four neighbours."""
    o_lane = tl.arange(0, 32)[None, :, None]
    return (tl.arange(0, TILE // 128)[:, None, None] * 32 + o_lane) * 4 + tl.arange(0, 4)[None, None, :]


@triton.jit
def load_first(p_row, first, vocab_size, TILE: tl.constexpr):
    """Load the first tile of a chunk, which may be in flight before anything else is known."""
    o_id = first + _ids_of_tile(TILE)
    return tl.load(p_row + o_id, mask=o_id < vocab_size, other=float("-inf"))


@triton.jit
def read_chunk(
    b_coming, p_row, first, vocab_size, slope, STEPS: tl.constexpr, TILE: tl.constexpr, WITH_SUMS: tl.constexpr
):
    """Key of the best of STEPS × TILE logits; and, with sums, a logit and the sum of 2^((logits - it) × slope)."""
    o_lane, o = tl.arange(0, 32), _ids_of_tile(TILE)
    b_best, b_sum = tl.full([32], float("-inf"), tl.float32), tl.zeros([32], tl.float32)
    b_anchor = tl.full([32], -1e38, tl.float32)
    b_id = first + o_lane * 4
    for step in range(STEPS):
        o_id = first + step * TILE + o
        b_raw = b_coming
        m = (o_id + TILE < vocab_size) & (step + 1 < STEPS)
        b_coming = tl.load(p_row + o_id + TILE, mask=m, other=float("-inf"))
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
    key = key_of(best, tl.min(tl.where(b_best == best, b_id, 0x7FFFFFFF), axis=0))
    anchor, total = 0.0, 0.0
    if WITH_SUMS:
        anchor = tl.max(b_anchor, axis=0)
        total = tl.sum(b_sum * rough_exp2((b_anchor - anchor) * slope), axis=0)
    return key, anchor, total
