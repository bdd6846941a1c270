"""Estimates the bracket of a row in a first reading: two logits between which its last kept token should lie.

The second of the kernels in `topk_topp.py`. It joins the largest logit and the approximate mass of a row with the
histogram of `sample_histogram`, and writes the row's record. Floating point is accurate enough, because a wrong
estimate costs time and never a token. It does not know the tokens between the two logits.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import launch_dependents, log, wait
from outrider.kernels.triton.sampling.noise import gumbel_of_ids
from outrider.kernels.triton.sampling.probability_mass import scaled, slope_of
from outrider.kernels.triton.sampling.record import (
    REC_ALL_NOISY,
    REC_BINS_FINE_SCALE,
    REC_BINS_MIDDLE,
    REC_BINS_SCALE,
    REC_BINS_TOP,
    REC_HIGH,
    REC_IS_PLAIN,
    REC_LARGEST,
    REC_LEAST,
    REC_LOW,
    REC_NEEDS_MASS,
    REC_NOISE_BOUND,
    REC_SLOPE,
    SCALE_TOP,
    SCALE_WIDTH,
    SCALES,
    SUM_ANCHOR,
    SUM_WEIGHT,
    SUMS,
)
from outrider.kernels.triton.sampling.row_max import load_first, read_chunk
from outrider.kernels.triton.sampling.sort_keys import (
    LOWEST,
    NOTHING,
    id_of,
    key_of,
    largest_of,
    load_finite,
    logit_of,
    monotonic,
    value_of,
)

_FINITE = tl.constexpr(1e38)
"""Rough masses below this contain no NaN and no infinity."""

_COUNT_DEVIATIONS = tl.constexpr(6.0)
"""Standard deviations of a count of the sample, and tokens, by which the lower end is below the expected k-th token."""

_MASS_DEVIATIONS = tl.constexpr(4.5)
"""Standard deviations of the estimated tail mass between the expected threshold and each end of the bracket."""

_TAIL_ERROR = tl.constexpr(0.01)
"""Share of the tail mass that rough weights and bins may be wrong by."""

_LIGHTEST_TAIL = tl.constexpr(0.1)
"""The tail mass is taken to be at least this share of its estimate."""

_HEAVY_PART = tl.constexpr(512.0)
"""A token heavier than the tail mass divided by this may be missing in the sample and still move the threshold."""

_MARGIN = tl.constexpr(0.002)
"""Scaled logits added to each end for the rounding of the estimate."""

_DEEPEST = tl.constexpr(64.0)
"""Scaled logits below the largest, where a token's mass is 0 (its unit is 2^-40)."""

_MIN_CERTAIN = tl.constexpr(2048.0)
"""An upper end is set only where more than about this many tokens would be listed without it."""

_FINE_SHARE = tl.constexpr(0.0625)
"""Share of the bracket, at its lower end, that half of the bins divide where no token is certain: then a few tokens
are far above the others."""

_LEAST_NOISE = tl.constexpr(-50.0)
"""The incumbent's value with noise is taken to be at least this, so that the bound stays finite."""

_BOUND_SCALE = tl.constexpr(8396996.0)
"""2^23, because random words are compared in units of 2^-23, plus 0.1 % for the rough exponential."""


@triton.jit
def _least_logit(min_p, largest, temperature):
    """The smallest logit that min_p keeps: one comparison replaces a quotient and a logarithm."""
    least = log(min_p)
    low, high = tl.full([], -0x7F800001, tl.int64), monotonic(largest + 0.0).to(tl.int64) + 1  # starting at -inf
    while low < high:
        middle = low + ((high - low) >> 1)
        if scaled(value_of(middle.to(tl.int32)), largest, temperature) >= least:
            high = middle
        else:
            low = middle + 1
    # nothing is kept, not even the largest
    return tl.where(low > monotonic(largest + 0.0).to(tl.int64), float("inf"), value_of(low.to(tl.int32)))


@triton.jit
def _share(b_amount, b_each):
    """The share, 0 to 1, of each bin's amount `b_each` that lies within `b_amount`."""
    return tl.where(b_amount >= b_each, 1.0, tl.maximum(b_amount, 0.0) / tl.maximum(b_each, 1e-30))


@triton.jit
def _set_bracket(
    i_row,
    p_logits,
    p_maxima,
    p_sums,
    p_histograms,
    p_scales,
    p_incumbent,
    p_records,
    p_undecided_bins,
    p_boundaries,
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
    num_chunks,
    CHUNKS: tl.constexpr,
    SAMPLE: tl.constexpr,
    NUM_BINS: tl.constexpr,
    UNDECIDED_BINS: tl.constexpr,
    MAX_BOUNDARY: tl.constexpr,
    RECORD: tl.constexpr,
    MAX_NOISE_CANDIDATES: tl.constexpr,
):
    """Write the record of a row, and zeros for the kernels after this one.

    Scaled logits are relative to the largest of the row; amounts of the sample are scaled to the whole row. Where no
    more than about MAX_NOISE_CANDIDATES tokens lie above the lower end of the bracket, only these will take noise.
    """
    o = tl.arange(0, NUM_BINS).to(tl.float32)
    o_chunk = tl.arange(0, CHUNKS)
    m_chunk = o_chunk < num_chunks
    i_table = tl.load(p_rows + i_row)
    p_record = p_records + i_row * RECORD
    b_count = tl.load(p_histograms + i_row * NUM_BINS + tl.arange(0, NUM_BINS)).to(tl.float32)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS)
    p_sum = p_sums + (i_row * num_chunks + o_chunk) * SUMS
    b_anchor = tl.load(p_sum + SUM_ANCHOR, mask=m_chunk, other=float("-inf"))
    b_sum = tl.load(p_sum + SUM_WEIGHT, mask=m_chunk, other=0.0)
    p_scale = p_scales + i_row * SCALES
    bins_top, width = tl.load(p_scale + SCALE_TOP), tl.load(p_scale + SCALE_WIDTH)
    guess = tl.load(p_incumbent + i_row).to(tl.int32)
    temperature = tl.load(p_temperature + i_table)
    top_k, top_p, min_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table), tl.load(p_min_p + i_table)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    p_bins = p_undecided_bins + i_row * UNDECIDED_BINS
    tl.store(p_bins + tl.arange(0, UNDECIDED_BINS), tl.zeros([UNDECIDED_BINS], tl.int64))
    tl.store(p_boundaries + i_row * (MAX_BOUNDARY + 1) + MAX_BOUNDARY, 0)
    tl.store(p_record + REC_SLOPE, 0.0)
    if temperature > 0:
        has_k = (top_k > 0) & (top_k < vocab_size)
        largest = logit_of(best)
        # exact noise of the most likely token and of the incumbent
        first = id_of(best).to(tl.int32)
        o_two = tl.where(tl.arange(0, 2) == 0, tl.minimum(guess, vocab_size - 1), first)
        b_two = load_finite(p_logits + i_row * stride + o_two, o_two >= 0)

        least_logit = tl.full([], float("-inf"), tl.float32)
        if min_p > 0:
            least_logit = _least_logit(min_p, largest, temperature)
        least = (least_logit - largest) / temperature
        low, high = tl.full([], float("-inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
        total = tl.sum(b_sum * tl.exp(tl.minimum((b_anchor - largest) / temperature, 0.0)), axis=0)
        is_plain = (total < _FINITE) & (least_logit == float("-inf"))
        total = tl.where(total < _FINITE, total, 1.0)
        noisy = tl.full([], 1.0, tl.float32)
        if has_k | (top_p < 1.0) | (min_p > 0):
            high = tl.full([], float("inf"), tl.float32)
            each = tl.maximum(vocab_size.to(tl.float32) / SAMPLE, 1.0)  # tokens per token of the sample
            upper = tl.where(largest > float("-inf"), (bins_top - largest) / temperature, 0.0)
            b_upper = upper - o * width
            b_below = tl.cumsum(b_count, axis=0)  # tokens down to the lower end of each bin
            if has_k:
                expected = top_k.to(tl.float32) / each
                wanted = tl.where(
                    each > 1.0, expected + _COUNT_DEVIATIONS * tl.sqrt(expected) + _COUNT_DEVIATIONS, expected
                )
                scaled_low = upper - width * tl.sum(_share(wanted - (b_below - b_count), b_count), axis=0)
                # it is below the bins or not in the sample, and few tokens are left: take all that are not masked
                num_within = tl.sum(tl.where(o < NUM_BINS - 1, b_count, 0.0), axis=0)
                scaled_low = tl.where(wanted > num_within, float("-inf"), scaled_low)
            elif top_p < 1.0:
                b_weight = tl.exp(b_upper - 0.5 * width)
                b_mass = b_count * b_weight * each
                b_mass_below = tl.cumsum(b_mass, axis=0, reverse=True)
                dropped = tl.sum(tl.where(b_upper <= least, b_mass, 0.0), axis=0)
                tail = (1.0 - top_p) * (total - dropped) + dropped  # mass below the threshold
                # tokens above this are all in the bracket
                heaviest = tl.where(each > 1.0, tl.log(tl.maximum(tail, 1e-30) / _HEAVY_PART), 0.0)
                scaled_threshold = upper - width * tl.sum(_share(b_mass_below - tail, b_mass), axis=0)
                m_light = b_upper <= tl.minimum(scaled_threshold, heaviest) + width
                b_square = tl.where(m_light, b_mass * b_weight * each, 0.0)
                deviation = tl.where(each > 1.0, _MASS_DEVIATIONS * tl.sqrt(tl.sum(b_square, axis=0)), 0.0)
                spread = deviation + _TAIL_ERROR * tail
                light, heavy = tl.maximum(tail - spread, _LIGHTEST_TAIL * tail), tail + spread
                scaled_low = upper - width * tl.sum(_share(b_mass_below - light, b_mass), axis=0)
                scaled_low = tl.minimum(scaled_low, heaviest) - _MARGIN
                scaled_low = tl.where(scaled_low <= upper - (NUM_BINS - 1) * width, -_DEEPEST, scaled_low)
                # tokens below this are fewer than the vocabulary and weigh less than `light` together
                scaled_low = tl.maximum(scaled_low, tl.log(tl.maximum(light, 1e-30) / vocab_size))
                scaled_high = upper - width * tl.sum(_share(b_mass_below - heavy, b_mass), axis=0) + _MARGIN
                above = each * tl.sum(tl.where(b_upper - 0.5 * width >= scaled_low, b_count, 0.0), axis=0)
                if (above > _MIN_CERTAIN) & (tl.max(b_mass_below, axis=0) > heavy) & (scaled_high <= heaviest):
                    high = scaled_high * temperature + largest
            else:  # min_p alone: the threshold is known
                scaled_low, high = least, tl.full([], float("-inf"), tl.float32)
            scaled_low = tl.maximum(scaled_low, least)
            above = each * tl.sum(tl.where(b_upper - 0.5 * width >= scaled_low, b_count, 0.0), axis=0)
            noisy = (above > MAX_NOISE_CANDIDATES).to(tl.float32)
            is_all = (scaled_low == float("-inf")) & (largest > scaled_low)
            low = tl.where(is_all, LOWEST, scaled_low * temperature + largest)
        b_noisy = scaled(b_two, largest, temperature) + gumbel_of_ids(seed, completion, position, o_two)
        # the most likely token is always kept; the incumbent is where many tokens are kept
        m_incumbent = (o_two == first) | (noisy > 0)
        incumbent = tl.max(tl.where(m_incumbent, key_of(b_noisy + 0.0, o_two), NOTHING), axis=0)
        tl.store(p_incumbent + i_row, incumbent)
        tl.store(p_record + REC_LOW, tl.maximum(low, least_logit))
        tl.store(p_record + REC_HIGH, high)
        tl.store(p_record + REC_LARGEST, largest)
        tl.store(p_record + REC_LEAST, least_logit)
        tl.store(p_record + REC_SLOPE, slope_of(temperature))
        # a token may be better only where its random word is at most its weight times this: -log1p(-v) >= v
        bound = tl.exp(-tl.maximum(logit_of(incumbent), _LEAST_NOISE)) * _BOUND_SCALE
        tl.store(p_record + REC_NOISE_BOUND, bound)
        tl.store(p_record + REC_NEEDS_MASS, ((top_p < 1.0) & ~has_k).to(tl.float32))
        tl.store(p_record + REC_ALL_NOISY, noisy)
        tl.store(p_record + REC_IS_PLAIN, is_plain.to(tl.float32))
        top = tl.minimum(high, largest)
        bottom = tl.maximum(tl.where(low > LOWEST, low, top - _DEEPEST * temperature), least_logit)
        # half of the bins are fine where no token is certain
        span = tl.maximum(top - bottom, 1e-30)
        middle = tl.where(high == float("inf"), bottom + span * _FINE_SHARE, float("-inf"))
        tl.store(p_record + REC_BINS_TOP, top)
        tl.store(p_record + REC_BINS_MIDDLE, middle)
        p_scale = p_record + REC_BINS_SCALE
        has_fine_bins = high == float("inf")
        coarse_scale = UNDECIDED_BINS * 0.5 / (span * (1.0 - _FINE_SHARE))
        tl.store(p_scale, tl.where(has_fine_bins, coarse_scale, UNDECIDED_BINS / span))
        tl.store(p_record + REC_BINS_FINE_SCALE, UNDECIDED_BINS * 0.5 / (span * _FINE_SHARE))


@triton.jit(do_not_specialize=["num_chunks"])
def threshold_estimate(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, SUMS] fp32
    p_histograms,  # [R, NUM_BINS] int32
    p_scales,  # [R, SCALES] fp32
    p_incumbent,  # [R] int64: in, an id; out, the key, with noise, of a token that should be kept
    p_records,  # [R, RECORD] fp32
    p_undecided_bins,  # [R, UNDECIDED_BINS] int64: zeros for the next kernel
    p_boundaries,  # [R, MAX_BOUNDARY + 1] int64: zero in the last place
    p_done,  # [R] int32: zeros, before and after
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
    num_chunks,
    STEPS: tl.constexpr,
    TILE: tl.constexpr,
    CHUNKS: tl.constexpr,
    SAMPLE: tl.constexpr,
    NUM_BINS: tl.constexpr,
    UNDECIDED_BINS: tl.constexpr,
    MAX_BOUNDARY: tl.constexpr,
    RECORD: tl.constexpr,
    MAX_NOISE_CANDIDATES: tl.constexpr,
):
    """Starts beside `sample_histogram`, which waited for the logits; the last program of a row waits for its sample."""
    launch_dependents()
    i_chunk, i_row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p_row, first = p_logits + i_row * stride, i_chunk * (STEPS * TILE)
    b_first = load_first(p_row, first, vocab_size, TILE)
    temperature = tl.load(p_temperature + tl.load(p_rows + i_row))
    slope = slope_of(tl.where(temperature > 0, temperature, 1.0))
    key, anchor, total = read_chunk(b_first, p_row, first, vocab_size, slope, STEPS, TILE, True)
    i_place = i_row * num_chunks + i_chunk
    tl.store(p_maxima + i_place, key)
    tl.store(p_sums + i_place * SUMS + SUM_ANCHOR, anchor)
    tl.store(p_sums + i_place * SUMS + SUM_WEIGHT, total)
    tl.debug_barrier()
    if tl.atomic_add(p_done + i_row, 1, sem="acq_rel") == num_chunks - 1:
        tl.debug_barrier()
        tl.store(p_done + i_row, 0)
        wait()
        _set_bracket(
            i_row,
            p_logits,
            p_maxima,
            p_sums,
            p_histograms,
            p_scales,
            p_incumbent,
            p_records,
            p_undecided_bins,
            p_boundaries,
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
            num_chunks,
            CHUNKS,
            SAMPLE,
            NUM_BINS,
            UNDECIDED_BINS,
            MAX_BOUNDARY,
            RECORD,
            MAX_NOISE_CANDIDATES,
        )
