"""The exact threshold of a row, and the token that is chosen from those it keeps.

The last of the kernels in `topk_topp.py`. Bins of exact amounts narrow the threshold to a few undecided
tokens, and noise decides among the candidates that are kept. Counts and masses are integers. Where they show that the
threshold lies outside the bracket, that the incumbent is not kept or that a list was full, the whole row is read.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.sampling.noise import gumbel_of_ids
from outrider.kernels.triton.sampling.probability_mass import add_pairs, mass_of, needed_mass, scaled, slope_of
from outrider.kernels.triton.sampling.record import (
    MASS_CERTAIN,
    MASS_KEPT,
    MASSES,
    REC_LEAST,
    REC_LOW,
    REC_NEEDS_MASS,
    bin_of,
    load_bins,
)
from outrider.kernels.triton.sampling.sort_keys import LOWEST, NOTHING, id_of, key_of, largest_of, load_finite, logit_of


@triton.jit
def _listed(listed, is_whole, o, least, SEGMENT: tl.constexpr, WIDTH: tl.constexpr, CANDIDATES: tl.constexpr = False):
    """Keys and logits at places `o` of the lists, or of the whole row, and a mask of the tokens that min_p keeps.

    Places go through the segments, four keys of each in turn: as many as if all were as full as the fullest.
    """
    p_logits, p_keys, p_counts, num_segments, vocab_size = listed
    if is_whole:
        m = o < vocab_size
        b_key = key_of(load_finite(p_logits + o, m), o)
    else:
        i_segment = (o >> 2) & (WIDTH - 1)
        b_place = o // (4 * WIDTH) * 4 + (o & 3)
        b_num = tl.load(p_counts + i_segment, mask=i_segment < num_segments, other=0)
        if CANDIDATES:
            m = b_place < (b_num >> 32)
            b_place = SEGMENT - 1 - b_place
        else:
            m = b_place < (b_num & 0xFFFFFFFF)
        b_key = tl.load(p_keys + i_segment * SEGMENT + b_place, mask=m, other=NOTHING)
    b_logit = logit_of(b_key)
    return b_key, b_logit, m & (b_logit >= least)


@triton.jit
def _amount(b, largest, slope, by_mass):
    """The amount of a token: its mass, or 1."""
    return tl.where(by_mass, mass_of(b, largest, slope), 1)


@triton.jit
def _amount_from(
    listed,
    is_whole,
    num_places,
    largest,
    slope,
    least,
    threshold,
    by_mass,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Amount of the listed tokens with keys of `threshold` or more."""
    b_sum = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_places, BLOCK):
        b_key, b_logit, m = _listed(listed, is_whole, start + tl.arange(0, BLOCK), least, SEGMENT, WIDTH)
        b_sum += tl.where(m & (b_key >= threshold), _amount(b_logit, largest, slope, by_mass), 0)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _collect_boundary(
    listed,
    is_whole,
    p_boundary,
    num_places,
    least,
    low,
    high,
    bins,
    i_bin,
    MAX_BOUNDARY: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_BINS: tl.constexpr,
):
    """Store the listed tokens from key `low` to key `high` in bin `i_bin` (in any, if negative), and count them.

    They go to p_boundary in any order, as far as there is space. The counter in the place after them must be 0.
    """
    b_num = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_places, BLOCK):
        b_key, b_logit, m = _listed(listed, is_whole, start + tl.arange(0, BLOCK), least, SEGMENT, WIDTH)
        m = m & (b_key >= low) & (b_key <= high)
        m = m & ((i_bin < 0) | (bin_of(b_logit, bins, NUM_BINS) == i_bin))
        b_one = tl.full([BLOCK], 1, tl.int64)
        b_place = tl.atomic_add(p_boundary + MAX_BOUNDARY + tl.zeros([BLOCK], tl.int32), b_one, mask=m, sem="relaxed")
        tl.store(p_boundary + b_place, b_key, mask=m & (b_place < MAX_BOUNDARY))
        b_num += m.to(tl.int32)
    num_boundary = tl.sum(b_num, axis=0)
    tl.debug_barrier()
    return num_boundary


@triton.jit
def _threshold_among(p_boundary, num_boundary, largest, slope, needed, by_mass, MAX_BOUNDARY: tl.constexpr):
    """The key at which the boundary tokens reach `needed`, which they do: each is compared with each."""
    o = tl.arange(0, MAX_BOUNDARY)
    b_key = tl.load(p_boundary + o[:, None], mask=o[:, None] < num_boundary, other=NOTHING)
    m = o[None, :] < num_boundary
    b_other = tl.load(p_boundary + o[None, :], mask=m, other=NOTHING)
    b_amount = tl.where(m, _amount(logit_of(b_other), largest, slope, by_mass), 0)
    b_got = tl.sum(tl.where(b_other >= b_key, b_amount, 0), axis=1)
    b_key = tl.max(b_key, axis=1)
    return tl.max(tl.where(b_got >= needed, b_key, NOTHING), axis=0)


@triton.jit
def _threshold_by_bins(
    listed,
    is_whole,
    p_boundary,
    p_bins,
    num_places,
    largest,
    slope,
    least,
    low,
    high,
    needed,
    by_mass,
    bins,
    MAX_BOUNDARY: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_BINS: tl.constexpr,
):
    """The key at which the listed tokens from key `low` to key `high` reach `needed` > 0, which they do.

    It divides keys into bins, so the spread of logits and ties do not matter: each round leaves 8 bits less.
    """
    o_bin = tl.arange(0, NUM_BINS)
    tl.debug_barrier()
    tl.store(p_boundary + MAX_BOUNDARY, 0)
    tl.debug_barrier()
    num_boundary = _collect_boundary(
        listed,
        is_whole,
        p_boundary,
        num_places,
        least,
        low,
        high,
        bins,
        -1,
        MAX_BOUNDARY,
        BLOCK,
        SEGMENT,
        WIDTH,
        NUM_BINS,
    )
    while num_boundary > MAX_BOUNDARY:
        width, shift = high.to(tl.uint64) - low.to(tl.uint64), tl.zeros([], tl.uint64)
        while (width >> shift) >= NUM_BINS:
            shift += 1
        tl.debug_barrier()
        tl.store(p_bins + o_bin, tl.zeros([NUM_BINS], tl.int64))
        tl.store(p_boundary + MAX_BOUNDARY, 0)
        tl.debug_barrier()
        for start in range(0, num_places, BLOCK):
            b_key, b_logit, m = _listed(listed, is_whole, start + tl.arange(0, BLOCK), least, SEGMENT, WIDTH)
            m = m & (b_key >= low) & (b_key <= high)
            b_bin = ((high.to(tl.uint64) - b_key.to(tl.uint64)) >> shift).to(tl.int32) & (NUM_BINS - 1)
            tl.atomic_add(p_bins + b_bin, _amount(b_logit, largest, slope, by_mass), mask=m, sem="relaxed")
        tl.debug_barrier()
        b_bins = tl.atomic_add(p_bins + o_bin, tl.zeros([NUM_BINS], tl.int64), sem="acquire")
        i_bin = tl.sum((tl.cumsum(b_bins, axis=0) < needed).to(tl.int32), axis=0)
        needed -= tl.sum(tl.where(o_bin < i_bin, b_bins, 0), axis=0)
        last = high.to(tl.uint64) - (i_bin.to(tl.uint64) << shift)
        width = last - low.to(tl.uint64)
        most = (tl.full([], 1, tl.uint64) << shift) - 1
        low = (last - tl.where(width < most, width, most)).to(tl.int64)
        high = last.to(tl.int64)
        num_boundary = _collect_boundary(
            listed,
            is_whole,
            p_boundary,
            num_places,
            least,
            low,
            high,
            bins,
            -1,
            MAX_BOUNDARY,
            BLOCK,
            SEGMENT,
            WIDTH,
            NUM_BINS,
        )
    return _threshold_among(p_boundary, num_boundary, largest, slope, needed, by_mass, MAX_BOUNDARY)


@triton.jit
def _is_bracket_too_narrow(num_kept, top_k, bracket_low, least):
    """True where the bracket's lower end is the reason why fewer than top_k tokens are listed. Below it, min_p may drop
    tokens without harm, and so may top_k keep masked ones, which are never chosen."""
    return (num_kept < top_k) & (bracket_low > LOWEST) & (bracket_low > least)


@triton.jit(do_not_specialize=["num_chunks"])
def threshold_select(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_records,  # [R, RECORD] fp32
    p_incumbent,  # [R] int64: the key, with noise, of a token that should be kept
    p_bins,  # [R, NUM_BINS] int64: amounts of undecided tokens
    p_counts,  # [R, num_chunks] int64: undecided tokens, and candidates × 2^32
    p_lists,  # [R, num_chunks, SEGMENT] int64 keys
    p_boundaries,  # [R, MAX_BOUNDARY + 1] int64
    p_masses,  # [R, num_chunks, MASSES] int64
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    p_seeds,
    p_completions,
    p_positions,
    p_out,  # [R] int64
    stride,
    vocab_size,
    num_chunks,
    MAX_BOUNDARY: tl.constexpr,
    BLOCK: tl.constexpr,
    NOISE_BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_BINS: tl.constexpr,
    RECORD: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    p_row = p_logits + i_row * stride
    p_boundary = p_boundaries + i_row * (MAX_BOUNDARY + 1)
    listed = (p_row, p_lists + i_row * num_chunks * SEGMENT, p_counts + i_row * num_chunks, num_chunks, vocab_size)
    o_chunk, o_bin = tl.arange(0, WIDTH), tl.arange(0, NUM_BINS)
    m_chunk = o_chunk < num_chunks
    # these were written before the logits
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    top_k, top_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    wait()
    b_counts = tl.load(p_counts + i_row * num_chunks + o_chunk, mask=m_chunk, other=0)
    p_mass = p_masses + (i_row * num_chunks + o_chunk) * MASSES
    b_total = tl.load(p_mass + MASS_KEPT, mask=m_chunk, other=0)
    b_certain = tl.load(p_mass + MASS_CERTAIN, mask=m_chunk, other=0)
    b_bins = tl.load(p_bins + i_row * NUM_BINS + o_bin)
    p_record = p_records + i_row * RECORD
    bracket_low, least = tl.load(p_record + REC_LOW), tl.load(p_record + REC_LEAST)
    needs_mass, bins = tl.load(p_record + REC_NEEDS_MASS) > 0, load_bins(p_record)
    chosen = tl.load(p_incumbent + i_row)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, WIDTH)
    incumbent_logit = load_finite(p_row + id_of(chosen), True)
    if temperature > 0:
        largest, slope = logit_of(best), slope_of(temperature)
        has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
        threshold = tl.full([], NOTHING, tl.int64)
        b_undecided, b_candidates = (b_counts & 0xFFFFFFFF).to(tl.int32), (b_counts >> 32).to(tl.int32)
        num_undecided = (tl.max(b_undecided, axis=0) + 3) // 4 * (4 * WIDTH)  # places to examine
        num_candidates = (tl.max(b_candidates, axis=0) + 3) // 4 * (4 * WIDTH)
        is_full = tl.max(b_undecided + b_candidates, axis=0) > SEGMENT
        is_whole = is_full
        p_own_bins = p_bins + i_row * NUM_BINS
        for phase in range(
            4
        ):  # top_k, then top_p, over the lists; then again over the whole row, if the lists are not enough
            by_mass, of_whole = (phase & 1) == 1, phase >= 2
            if tl.where(by_mass, has_p, has_k) & (of_whole == is_whole):
                num_places = tl.where(of_whole, vocab_size, num_undecided)
                is_found = False
                if (by_mass == needs_mass) & (not of_whole):  # the bins of the scan say it
                    total, certain = tl.reduce((b_total, b_certain), 0, add_pairs)
                    needed = tl.where(needs_mass, needed_mass(top_p, total) - certain, top_k)
                    b_through = tl.cumsum(b_bins, axis=0)
                    undecided_amount = tl.max(b_through, axis=0)
                    if needs_mass:
                        is_whole = (total > 0) & ((needed <= 0) | (undecided_amount < needed))
                    else:
                        is_whole = _is_bracket_too_narrow(undecided_amount, top_k, bracket_low, least)
                    has_threshold = (not is_whole) & (needed > 0) & (undecided_amount >= needed)
                    if has_threshold:
                        i_bin = tl.sum((b_through < needed).to(tl.int32), axis=0)
                        above = tl.max(tl.where(b_through < needed, b_through, 0), axis=0)
                        num_boundary = _collect_boundary(
                            listed,
                            False,
                            p_boundary,
                            num_places,
                            least,
                            threshold,
                            best,
                            bins,
                            i_bin,
                            MAX_BOUNDARY,
                            BLOCK,
                            SEGMENT,
                            WIDTH,
                            NUM_BINS,
                        )
                        if num_boundary <= MAX_BOUNDARY:
                            threshold = _threshold_among(
                                p_boundary, num_boundary, largest, slope, needed - above, by_mass, MAX_BOUNDARY
                            )
                            is_found = True
                else:
                    got = _amount_from(
                        listed, of_whole, num_places, largest, slope, least, threshold, by_mass, BLOCK, SEGMENT, WIDTH
                    )
                    needed = tl.where(by_mass, needed_mass(top_p, got), top_k)
                    has_threshold = got >= needed
                if has_threshold & (not is_found):
                    threshold = _threshold_by_bins(
                        listed,
                        of_whole,
                        p_boundary,
                        p_own_bins,
                        num_places,
                        largest,
                        slope,
                        least,
                        threshold,
                        best,
                        needed,
                        by_mass,
                        bins,
                        MAX_BOUNDARY,
                        BLOCK,
                        SEGMENT,
                        WIDTH,
                        NUM_BINS,
                    )
        # if the incumbent is kept, the candidates are all tokens that may be better
        is_whole = is_full | (is_whole & (bracket_low > least))
        is_whole = is_whole | (incumbent_logit < least) | (key_of(incumbent_logit, id_of(chosen)) < threshold)
        if is_whole:
            num_candidates = vocab_size
            chosen = tl.full([], NOTHING, tl.int64)
        for start in range(0, num_candidates, NOISE_BLOCK):
            o = start + tl.arange(0, NOISE_BLOCK)
            b_key, b_logit, m = _listed(listed, is_whole, o, least, SEGMENT, WIDTH, CANDIDATES=True)
            m = m & (b_key >= threshold)
            b_id = id_of(b_key).to(tl.int32)
            b_noisy = scaled(b_logit, largest, temperature) + gumbel_of_ids(seed, completion, position, b_id)
            chosen = tl.maximum(chosen, tl.max(tl.where(m, key_of(b_noisy, b_id), NOTHING), axis=0))
        # nothing is left where min_p is above 1
        best = tl.where(chosen == NOTHING, best, chosen)
    tl.store(p_out + i_row, id_of(best))
