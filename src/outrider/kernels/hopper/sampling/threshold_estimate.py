"""Where a row is cut, guessed from a sample of its vocabulary. Floating point will do: a guess never costs a token.

Two kernels, each of which leaves greedy rows alone:

    sample    a histogram of some thousand tokens, and the firm token: which of the surely kept ones is probably best
              with its noise. It needs nothing but logits, so it runs beside the first reading of the whole row.
    bracket   that reading; and from it and the histogram, two logits between which the last kept token should stand.

Neither knows what is done between them: that is in `threshold_scan.py` and `threshold_select.py`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.hopper.intrinsics import launch_dependents, log, wait
from outrider.kernels.hopper.sampling.noise import bits_of_groups, bound_of_bits, gumbel_of_ids
from outrider.kernels.hopper.sampling.probability_mass import scaled, slope_of
from outrider.kernels.hopper.sampling.row_max import load_first, read_chunk
from outrider.kernels.hopper.sampling.sort_keys import (
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

SEGMENT = 64
SAMPLE = 128 * SEGMENT
"""Tokens that are looked at, in segments spread evenly."""

NUM_BINS = 128

RECORD = 16
"""fp32 numbers of a row: lo, hi, largest logit, least logit that min_p keeps, slope, bound of noise, whether masses are
needed, whether the whole row takes noise, whether all its logits are plain numbers that min_p keeps, and the bins of
open tokens, as `bin_of` of `threshold_scan.py` has them."""


@triton.jit
def sample_kernel(
    p_logits,
    p_histograms,  # [R, NUM_BINS] int32: bin 0 begins at the largest logit of the sample
    p_scales,  # [R, 2] fp32: the largest logit of the sample; width of a bin, in scaled logits
    p_firm,  # [R] int64: an id
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
    QUIET: tl.constexpr,
):
    """The kernel behind this one may begin as soon as what is before this one has ended."""
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
        b = tl.maximum(b, -1e6)
        m_high = b > -1e5  # masked tokens are in no bin
        total, num_high = tl.reduce((tl.where(m_high, b, 0.0), m_high.to(tl.float32)), 0, _add_two)
        # at most half of them lie behind the bins; where masses cut, none is of weight behind 32
        span = tl.maximum(-2.0 * total / tl.maximum(num_high, 1.0), 1e-4)
        width = tl.where((top_k > 0) & (top_k < vocab_size), span, tl.minimum(span, 32.0)) / NUM_BINS
        b_bin = tl.minimum(b * (-1.0 / width), NUM_BINS - 1.0).to(tl.int32)
        b_count = tl.histogram(b_bin, NUM_BINS, mask=m_high)
        tl.store(p_histograms + i_row * NUM_BINS + tl.arange(0, NUM_BINS), b_count)
        tl.store(p_scales + i_row * 2, largest)
        tl.store(p_scales + i_row * 2 + 1, width)
        # where noise is taken before the cut is known, more than QUIET tokens are kept: half of them for sure
        num_sure = SAMPLE * (QUIET // 2) // tl.maximum(vocab_size, SAMPLE)
        num_sure = tl.sum((tl.cumsum(b_count, axis=0) <= num_sure).to(tl.int32), axis=0)
        if ((top_k <= 0) | (top_k >= vocab_size)) & (top_p >= 1.0) & (min_p <= 0):
            num_sure = NUM_BINS
        # every fourth segment takes noise, of which the two logarithms are rough: a firm token need not be the best
        o_part = _ids_of_sample(4 * step, SAMPLE // 4, SEGMENT)
        m_part = o_part < vocab_size
        b_part = load_finite(p_logits + i_row * stride + o_part, m_part)
        b_part = tl.maximum((b_part - tl.where(largest == float("-inf"), 0.0, largest)) * (1.0 / temperature), -1e6)
        m_part = m_part & (tl.minimum(b_part * (-1.0 / width), NUM_BINS - 1.0).to(tl.int32) <= num_sure)
        o_group = _ids_of_sample(step, SAMPLE // 16, SEGMENT // 4)
        b_rough = b_part + bound_of_bits(bits_of_groups(seed, completion, position, o_group))
        b_rough = tl.where(m_part, b_rough, float("-inf"))
        best = tl.max(b_rough, axis=0)
        tl.store(p_firm + i_row, tl.min(tl.where(b_rough == best, o_part, 0x7FFFFFFF), axis=0).to(tl.int64))


@triton.jit
def _ids_of_sample(step, NUM: tl.constexpr, SEGMENT: tl.constexpr):
    o = tl.arange(0, NUM)
    return (o // SEGMENT) * step + o % SEGMENT


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def _least_logit(min_p, largest, temperature):
    """The smallest logit that min_p keeps: one comparison in place of a quotient and a logarithm."""
    least = log(min_p)
    low, high = tl.full([], -0x7F800001, tl.int64), monotonic(largest + 0.0).to(tl.int64) + 1  # from -inf on
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
    """Of each bin that holds `b_each`, how much lies within `b_amount`: 0 to 1."""
    return tl.where(b_amount >= b_each, 1.0, tl.maximum(b_amount, 0.0) / tl.maximum(b_each, 1e-30))


@triton.jit
def _set_bracket(
    i_row,
    p_logits,
    found,
    results,
    limits,
    stride,
    vocab_size,
    num_chunks,
    CHUNKS: tl.constexpr,
    SAMPLE: tl.constexpr,
    NUM_BINS: tl.constexpr,
    OPEN_BINS: tl.constexpr,
    FEW: tl.constexpr,
    RECORD: tl.constexpr,
    QUIET: tl.constexpr,
):
    """Scaled logits are counted from the largest of the row; amounts of the sample are those of the whole row.

    Where no more than about QUIET tokens lie above the lower end of the bracket, these alone will take noise.
    """
    p_maxima, p_sums, p_histograms, p_scales = found
    p_firm, p_records, p_open_bins, p_fews = results
    p_rows, p_temperature, p_top_k, p_top_p, p_min_p, p_seeds, p_completions, p_positions = limits
    o = tl.arange(0, NUM_BINS).to(tl.float32)
    o_chunk = tl.arange(0, CHUNKS)
    m_chunk = o_chunk < num_chunks
    i_table = tl.load(p_rows + i_row)
    p_record = p_records + i_row * RECORD
    b_count = tl.load(p_histograms + i_row * NUM_BINS + tl.arange(0, NUM_BINS)).to(tl.float32)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS)
    p_sum = p_sums + (i_row * num_chunks + o_chunk) * 2
    b_anchor = tl.load(p_sum, mask=m_chunk, other=float("-inf"))
    b_sum = tl.load(p_sum + 1, mask=m_chunk, other=0.0)
    anchor, width = tl.load(p_scales + i_row * 2), tl.load(p_scales + i_row * 2 + 1)
    guess = tl.load(p_firm + i_row).to(tl.int32)
    temperature = tl.load(p_temperature + i_table)
    top_k, top_p, min_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table), tl.load(p_min_p + i_table)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    tl.store(p_open_bins + i_row * OPEN_BINS + tl.arange(0, OPEN_BINS), tl.zeros([OPEN_BINS], tl.int64))
    tl.store(p_fews + i_row * (FEW + 1) + FEW, 0)
    tl.store(p_record + 4, 0.0)
    if temperature > 0:
        has_k = (top_k > 0) & (top_k < vocab_size)
        largest = logit_of(best)
        # of the most likely token and the firm one, noise as it is
        first = id_of(best).to(tl.int32)
        o_two = tl.where(tl.arange(0, 2) == 0, tl.minimum(guess, vocab_size - 1), first)
        b_two = load_finite(p_logits + i_row * stride + o_two, o_two >= 0)

        least_logit = tl.full([], float("-inf"), tl.float32)
        if min_p > 0:
            least_logit = _least_logit(min_p, largest, temperature)
        least = (least_logit - largest) / temperature
        lo, hi = tl.full([], float("-inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
        total = tl.sum(b_sum * tl.exp(tl.minimum((b_anchor - largest) / temperature, 0.0)), axis=0)
        is_plain = (total < 1e38) & (least_logit == float("-inf"))  # with a NaN or an infinity the sum is none
        total = tl.where(total < 1e38, total, 1.0)
        noisy = tl.full([], 1.0, tl.float32)
        if has_k | (top_p < 1.0) | (min_p > 0):
            hi = tl.full([], float("inf"), tl.float32)
            each = tl.maximum(vocab_size.to(tl.float32) / SAMPLE, 1.0)  # tokens that one of the sample stands for
            upper = tl.where(largest > float("-inf"), (anchor - largest) / temperature, 0.0)
            b_upper = upper - o * width
            b_below = tl.cumsum(b_count, axis=0)  # tokens down to the lower end of each bin
            if has_k:
                expected = top_k.to(tl.float32) / each
                wanted = tl.where(each > 1.0, expected + 6.0 * tl.sqrt(expected) + 6.0, expected)
                low = upper - width * tl.sum(_share(wanted - (b_below - b_count), b_count), axis=0)
                # behind the bins, or not in the sample: every token that is not masked, for few are left
                num_within = tl.sum(tl.where(o < NUM_BINS - 1, b_count, 0.0), axis=0)
                low = tl.where(wanted > num_within, float("-inf"), low)
            elif top_p < 1.0:
                b_weight = tl.exp(b_upper - 0.5 * width)
                b_mass = b_count * b_weight * each
                b_mass_below = tl.cumsum(b_mass, axis=0, reverse=True)
                dropped = tl.sum(tl.where(b_upper <= least, b_mass, 0.0), axis=0)
                tail = (1.0 - top_p) * (total - dropped) + dropped  # mass behind the cut
                # a token that weighs more than this may be missing in the sample and still matter
                heaviest = tl.where(each > 1.0, tl.log(tl.maximum(tail, 1e-30) / 512.0), 0.0)
                cut = upper - width * tl.sum(_share(b_mass_below - tail, b_mass), axis=0)
                b_square = tl.where(b_upper <= tl.minimum(cut, heaviest) + width, b_mass * b_weight * each, 0.0)
                spread = tl.where(each > 1.0, 4.5 * tl.sqrt(tl.sum(b_square, axis=0)), 0.0) + 0.01 * tail
                light, heavy = tl.maximum(tail - spread, 0.1 * tail), tail + spread
                low = upper - width * tl.sum(_share(b_mass_below - light, b_mass), axis=0)
                low = tl.minimum(low, heaviest) - 0.002
                low = tl.where(low <= upper - (NUM_BINS - 1) * width, -64.0, low)
                # tokens below this are fewer than the vocabulary and weigh less than `light` together
                low = tl.maximum(low, tl.log(tl.maximum(light, 1e-30) / vocab_size))
                high = upper - width * tl.sum(_share(b_mass_below - heavy, b_mass), axis=0) + 0.002
                above = each * tl.sum(tl.where(b_upper - 0.5 * width >= low, b_count, 0.0), axis=0)
                if (above > 2048.0) & (tl.max(b_mass_below, axis=0) > heavy) & (high <= heaviest):
                    hi = high * temperature + largest
            else:  # min_p alone cuts where it says
                low, hi = least, tl.full([], float("-inf"), tl.float32)
            low = tl.maximum(low, least)
            above = each * tl.sum(tl.where(b_upper - 0.5 * width >= low, b_count, 0.0), axis=0)
            noisy = (above > QUIET).to(tl.float32)
            lo = tl.where((low == float("-inf")) & (largest > low), LOWEST, low * temperature + largest)
        b_noisy = scaled(b_two, largest, temperature) + gumbel_of_ids(seed, completion, position, o_two)
        # the most likely token is always kept; the other, where many are
        m_firm = (o_two == first) | (noisy > 0)
        firm = tl.max(tl.where(m_firm, key_of(b_noisy + 0.0, o_two), NOTHING), axis=0)
        tl.store(p_firm + i_row, firm)
        tl.store(p_record, tl.maximum(lo, least_logit))
        tl.store(p_record + 1, hi)
        tl.store(p_record + 2, largest)
        tl.store(p_record + 3, least_logit)
        tl.store(p_record + 4, slope_of(temperature))
        # a token may be better where its random word is at most its weight times this: -log1p(-v) is at least v
        bound = tl.exp(-tl.maximum(logit_of(firm), -50.0)) * 8396996.0  # 2^23 and a thousandth
        tl.store(p_record + 5, bound)
        tl.store(p_record + 6, ((top_p < 1.0) & ~has_k).to(tl.float32))
        tl.store(p_record + 7, noisy)
        tl.store(p_record + 8, is_plain.to(tl.float32))
        top = tl.minimum(hi, largest)
        bottom = tl.maximum(tl.where(lo > LOWEST, lo, top - 64.0 * temperature), least_logit)
        # where nothing is certain, a few tokens are far above the others: half of the bins for those at the lower end
        span = tl.maximum(top - bottom, 1e-30)
        middle = tl.where(hi == float("inf"), bottom + span * 0.0625, float("-inf"))
        tl.store(p_record + 9, top)
        tl.store(p_record + 10, middle)
        tl.store(p_record + 11, tl.where(hi == float("inf"), OPEN_BINS * 0.5 / (span * 0.9375), OPEN_BINS / span))
        tl.store(p_record + 12, OPEN_BINS * 0.5 / (span * 0.0625))


@triton.jit(do_not_specialize=["num_chunks"])
def bracket_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, 2] fp32
    p_histograms,  # [R, NUM_BINS] int32
    p_scales,  # [R, 2] fp32
    p_firm,  # [R] int64: in, an id; out, the key with noise of a token that should be kept
    p_records,  # [R, RECORD] fp32
    p_open_bins,  # [R, OPEN_BINS] int64: zeros for the next kernel
    p_fews,  # [R, FEW + 1] int64: a zero in the last place
    p_done,  # [R] int32: zeros, which it leaves
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
    OPEN_BINS: tl.constexpr,
    FEW: tl.constexpr,
    RECORD: tl.constexpr,
    QUIET: tl.constexpr,
):
    """It begins beside the kernel before it, which waited for the logits; who ends a row waits for its sample."""
    launch_dependents()
    i_chunk, i_row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p_row, first = p_logits + i_row * stride, i_chunk * (STEPS * TILE)
    b_first = load_first(p_row, first, vocab_size, TILE)
    temperature = tl.load(p_temperature + tl.load(p_rows + i_row))
    slope = slope_of(tl.where(temperature > 0, temperature, 1.0))
    key, anchor, total = read_chunk(b_first, p_row, first, vocab_size, slope, STEPS, TILE, True)
    i_place = i_row * num_chunks + i_chunk
    tl.store(p_maxima + i_place, key)
    tl.store(p_sums + i_place * 2, anchor)
    tl.store(p_sums + i_place * 2 + 1, total)
    tl.debug_barrier()
    if tl.atomic_add(p_done + i_row, 1, sem="acq_rel") == num_chunks - 1:
        tl.debug_barrier()
        tl.store(p_done + i_row, 0)
        wait()
        _set_bracket(
            i_row,
            p_logits,
            (p_maxima, p_sums, p_histograms, p_scales),
            (p_firm, p_records, p_open_bins, p_fews),
            (p_rows, p_temperature, p_top_k, p_top_p, p_min_p, p_seeds, p_completions, p_positions),
            stride,
            vocab_size,
            num_chunks,
            CHUNKS,
            SAMPLE,
            NUM_BINS,
            OPEN_BINS,
            FEW,
            RECORD,
            QUIET,
        )
