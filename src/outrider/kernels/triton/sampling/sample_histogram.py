"""A histogram of a sample of each row, and the incumbent: a token that is kept for certain and may be the best.

The first of the kernels in `topk_topp.py`. It needs nothing but logits, so it runs beside the first reading of the
whole row. Floating point is accurate enough, because a wrong guess costs time and never a token.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.sampling.noise import bits_of_groups, bound_of_bits
from outrider.kernels.triton.sampling.probability_mass import add_pairs
from outrider.kernels.triton.sampling.record import SCALE_TOP, SCALE_WIDTH, SCALES
from outrider.kernels.triton.sampling.sort_keys import load_finite

SEGMENT = 64
"""Neighbouring tokens of the sample."""

SAMPLE = 128 * SEGMENT
"""Tokens of the sample, in segments spread evenly over the vocabulary."""

NUM_BINS = 128

_LOWEST_SCALED = tl.constexpr(-1e6)
"""Scaled logits are raised to this, so that sums of them stay finite."""

_MASKED_BELOW = tl.constexpr(-1e5)
"""Scaled logits below this belong to masked tokens, which are in no bin."""

_LARGEST_SPAN = tl.constexpr(32.0)
"""Scaled logits that the bins cover where masses decide: below it, a token's weight is less than e^-32."""

_SMALLEST_SPAN = tl.constexpr(1e-4)
"""Likewise at least, where all tokens of the sample are alike."""


@triton.jit
def sample_histogram(
    p_logits,
    p_histograms,  # [R, NUM_BINS] int32: bin 0 begins at the largest logit of the sample
    p_scales,  # [R, SCALES] fp32
    p_incumbent,  # [R] int64: an id
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    p_seeds,
    p_completions,
    p_positions,
    stride,
    vocab_size,
    SAMPLE: tl.constexpr,
    SEGMENT: tl.constexpr,
    NUM_BINS: tl.constexpr,
    MAX_NOISE_CANDIDATES: tl.constexpr,
):
    """Waits before it lets the next kernel start, so that the next one may read the logits without waiting."""
    wait()
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    step = tl.maximum(vocab_size // (SAMPLE // SEGMENT) // 4 * 4, SEGMENT)
    o_id = _ids_of_sample(step, SAMPLE, SEGMENT)
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    top_k, top_p, min_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table), tl.load(p_min_p + i_table)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    if temperature > 0:
        b = load_finite(p_logits + i_row * stride + o_id, o_id < vocab_size)
        largest = tl.max(b, axis=0)
        b = (b - tl.where(largest == float("-inf"), 0.0, largest)) * (1.0 / temperature)
        b = tl.maximum(b, _LOWEST_SCALED)
        m_high = b > _MASKED_BELOW
        total, num_high = tl.reduce((tl.where(m_high, b, 0.0), m_high.to(tl.float32)), 0, add_pairs)
        # twice the mean, so that at most half of the tokens lie below the bins
        span = tl.maximum(-2.0 * total / tl.maximum(num_high, 1.0), _SMALLEST_SPAN)
        width = tl.where((top_k > 0) & (top_k < vocab_size), span, tl.minimum(span, _LARGEST_SPAN)) / NUM_BINS
        b_bin = tl.minimum(b * (-1.0 / width), NUM_BINS - 1.0).to(tl.int32)
        b_count = tl.histogram(b_bin, NUM_BINS, mask=m_high)
        tl.store(p_histograms + i_row * NUM_BINS + tl.arange(0, NUM_BINS), b_count)
        p_scale = p_scales + i_row * SCALES
        tl.store(p_scale + SCALE_TOP, largest)
        tl.store(p_scale + SCALE_WIDTH, width)
        # where noise is taken before the threshold is known, more than MAX_NOISE_CANDIDATES tokens are kept: the first
        # half of that number for certain, and so the bins that hold them
        num_certain = SAMPLE * (MAX_NOISE_CANDIDATES // 2) // tl.maximum(vocab_size, SAMPLE)
        num_certain_bins = tl.sum((tl.cumsum(b_count, axis=0) <= num_certain).to(tl.int32), axis=0)
        if ((top_k <= 0) | (top_k >= vocab_size)) & (top_p >= 1.0) & (min_p <= 0):
            num_certain_bins = NUM_BINS
        # every fourth segment takes noise with rough logarithms: the incumbent need not be the best
        o_part = _ids_of_sample(4 * step, SAMPLE // 4, SEGMENT)
        m_part = o_part < vocab_size
        b_part = load_finite(p_logits + i_row * stride + o_part, m_part)
        b_part = tl.maximum(
            (b_part - tl.where(largest == float("-inf"), 0.0, largest)) * (1.0 / temperature), _LOWEST_SCALED
        )
        m_part = m_part & (tl.minimum(b_part * (-1.0 / width), NUM_BINS - 1.0).to(tl.int32) <= num_certain_bins)
        o_group = _ids_of_sample(step, SAMPLE // 16, SEGMENT // 4)
        b_rough = b_part + bound_of_bits(bits_of_groups(seed, completion, position, o_group))
        b_rough = tl.where(m_part, b_rough, float("-inf"))
        best = tl.max(b_rough, axis=0)
        tl.store(p_incumbent + i_row, tl.min(tl.where(b_rough == best, o_part, 0x7FFFFFFF), axis=0).to(tl.int64))


@triton.jit
def _ids_of_sample(step, NUM: tl.constexpr, SEGMENT: tl.constexpr):
    """Ids of NUM tokens: segments that begin `step` apart."""
    o = tl.arange(0, NUM)
    return (o // SEGMENT) * step + o % SEGMENT
