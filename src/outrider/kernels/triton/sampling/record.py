"""Records that the kernels of truncated sampling exchange about a row or a part of it: the names of their entries.

The record of a random row is written by `threshold_estimate` and read by the kernels after it.

A bracket is a pair of logits between which the last kept token should lie: tokens of REC_HIGH or more are certain to
be kept, those in between are undecided, those below REC_LOW are dropped. The bins of undecided tokens are coarse from
the upper end to REC_BINS_MIDDLE, and fine below it.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import product

RECORD = 16
"""Entries of a record: the 13 named below, padded to a power of two."""

REC_LOW = tl.constexpr(0)
"""Lower end of the bracket, a logit."""
REC_HIGH = tl.constexpr(1)
"""Upper end; infinity where no token is certain, REC_LOW or less where nothing is undecided."""
REC_LARGEST = tl.constexpr(2)
"""Largest logit of the row."""
REC_LEAST = tl.constexpr(3)
"""Smallest logit that min_p keeps."""
REC_SLOPE = tl.constexpr(4)
"""log2(e) / temperature; 0 in greedy rows, whose records have no other entry."""
REC_NOISE_BOUND = tl.constexpr(5)
"""A token may beat the incumbent where its random word is at most its weight times this."""
REC_NEEDS_MASS = tl.constexpr(6)
"""1 where masses decide what is kept (top_p without top_k), 0 where counts do."""
REC_ALL_NOISY = tl.constexpr(7)
"""1 where every token of the row takes noise, 0 where only those of REC_LOW or more do."""
REC_IS_PLAIN = tl.constexpr(8)
"""1 where all logits are finite numbers that min_p keeps."""
REC_BINS_TOP = tl.constexpr(9)
"""Upper end of the bins of undecided tokens, a logit."""
REC_BINS_MIDDLE = tl.constexpr(10)
"""Logit below which the bins are fine; -infinity where all bins are equal."""
REC_BINS_SCALE = tl.constexpr(11)
"""Bins in a unit of logits, from the top to the middle."""
REC_BINS_FINE_SCALE = tl.constexpr(12)
"""Bins in a unit of logits, below the middle."""

SCALES = tl.constexpr(2)
"""Entries of the scale of a row's histogram, fp32."""
SCALE_TOP = tl.constexpr(0)
"""Largest logit of the sample, where bin 0 begins."""
SCALE_WIDTH = tl.constexpr(1)
"""Width of a bin, in scaled logits."""

SUMS = tl.constexpr(2)
"""Entries of the rough mass of a chunk, fp32."""
SUM_ANCHOR = tl.constexpr(0)
"""The logit that weights are relative to."""
SUM_WEIGHT = tl.constexpr(1)
"""Sum of 2^((logit - anchor) × slope)."""

MASSES = tl.constexpr(2)
"""Entries of the exact mass of a chunk, int64."""
MASS_KEPT = tl.constexpr(0)
"""Mass of all tokens that min_p keeps."""
MASS_CERTAIN = tl.constexpr(1)
"""Mass of the certain tokens."""


@triton.jit
def load_bins(p_record):
    """The numbers that `bin_of` needs: top, middle, scale, fine scale."""
    return (
        tl.load(p_record + REC_BINS_TOP),
        tl.load(p_record + REC_BINS_MIDDLE),
        tl.load(p_record + REC_BINS_SCALE),
        tl.load(p_record + REC_BINS_FINE_SCALE),
    )


@triton.jit
def bin_of(b, bins, NUM_BINS: tl.constexpr):
    """The bin of an undecided token. Every kernel finds the same one: no product here can be fused into an fma."""
    top, middle, scale, fine_scale = bins
    num_above = tl.where(middle == float("-inf"), NUM_BINS * 1.0, NUM_BINS * 0.5)
    b_above = tl.minimum(tl.maximum(product(top - b, scale), 0.0), num_above - 1.0).to(tl.int32)
    b_below = tl.minimum(product(middle - b, fine_scale), NUM_BINS * 0.5 - 1.0).to(tl.int32) + NUM_BINS // 2
    return tl.where(b >= middle, b_above, tl.maximum(b_below, NUM_BINS // 2))
