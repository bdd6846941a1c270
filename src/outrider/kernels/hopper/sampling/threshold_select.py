"""Where a row is cut, exactly, and which of the kept tokens is chosen: the last step of a random row.

Bins of exact amounts say among which few open tokens the cut lies, and noise decides among the rivals that are kept
(`threshold_scan.py` says what these are). Counts and masses are integers, and where they show that the cut lies
elsewhere, that the firm token is not kept or that a list had no room, the whole row is taken.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.hopper.intrinsics import launch_dependents, wait
from outrider.kernels.hopper.sampling.noise import gumbel_of_ids
from outrider.kernels.hopper.sampling.probability_mass import mass_of, needed_mass, scaled, slope_of
from outrider.kernels.hopper.sampling.sort_keys import LOWEST, NOTHING, id_of, key_of, largest_of, load_finite, logit_of
from outrider.kernels.hopper.sampling.threshold_scan import bin_of, load_bins


@triton.jit
def _listed(listed, is_whole, o, least, SEGMENT: tl.constexpr, WIDTH: tl.constexpr, RIVALS: tl.constexpr = False):
    """Keys, logits and mask of the listed tokens, or of those of the row, that min_p keeps, at places `o`.

    Places take four keys of each segment in turn, so as many as the fullest has must be looked at.
    """
    p_logits, p_keys, p_counts, num_segments, vocab_size = listed
    if is_whole:
        m = o < vocab_size
        b_key = key_of(load_finite(p_logits + o, m), o)
    else:
        i_segment = (o >> 2) & (WIDTH - 1)
        b_place = o // (4 * WIDTH) * 4 + (o & 3)
        b_num = tl.load(p_counts + i_segment, mask=i_segment < num_segments, other=0)
        if RIVALS:
            m = b_place < (b_num >> 32)
            b_place = SEGMENT - 1 - b_place
        else:
            m = b_place < (b_num & 0xFFFFFFFF)
        b_key = tl.load(p_keys + i_segment * SEGMENT + b_place, mask=m, other=NOTHING)
    b_logit = logit_of(b_key)
    return b_key, b_logit, m & (b_logit >= least)


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def _amount(b, largest, slope, by_mass):
    """What a token counts for: its mass, or 1."""
    return tl.where(by_mass, mass_of(b, largest, slope), 1)


@triton.jit
def _reached(
    listed,
    is_whole,
    num_places,
    largest,
    slope,
    least,
    floor,
    by_mass,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Amount of the listed tokens with keys of `floor` or more."""
    b_sum = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_places, BLOCK):
        b_key, b_logit, m = _listed(listed, is_whole, start + tl.arange(0, BLOCK), least, SEGMENT, WIDTH)
        b_sum += tl.where(m & (b_key >= floor), _amount(b_logit, largest, slope, by_mass), 0)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _few(
    listed,
    is_whole,
    p_few,
    num_places,
    least,
    low,
    high,
    bins,
    i_bin,
    FEW: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_BINS: tl.constexpr,
):
    """Of the listed tokens, those from `low` to `high` in a bin (in any, if that is negative) go to p_few in any order:
    how many. They take places from the number behind the last, which must be 0."""
    b_num = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_places, BLOCK):
        b_key, b_logit, m = _listed(listed, is_whole, start + tl.arange(0, BLOCK), least, SEGMENT, WIDTH)
        m = m & (b_key >= low) & (b_key <= high)
        m = m & ((i_bin < 0) | (bin_of(b_logit, bins, NUM_BINS) == i_bin))
        b_one = tl.full([BLOCK], 1, tl.int64)
        b_place = tl.atomic_add(p_few + FEW + tl.zeros([BLOCK], tl.int32), b_one, mask=m, sem="relaxed")
        tl.store(p_few + b_place, b_key, mask=m & (b_place < FEW))
        b_num += m.to(tl.int32)
    num_few = tl.sum(b_num, axis=0)
    tl.debug_barrier()
    return num_few


@triton.jit
def _cut_few(p_few, num_few, largest, slope, needed, by_mass, FEW: tl.constexpr):
    """The key of the token at which at most FEW reach `needed`, which they do: each is compared with each."""
    o = tl.arange(0, FEW)
    b_key = tl.load(p_few + o[:, None], mask=o[:, None] < num_few, other=NOTHING)
    m = o[None, :] < num_few
    b_other = tl.load(p_few + o[None, :], mask=m, other=NOTHING)
    b_amount = tl.where(m, _amount(logit_of(b_other), largest, slope, by_mass), 0)
    b_got = tl.sum(tl.where(b_other >= b_key, b_amount, 0), axis=1)
    b_key = tl.max(b_key, axis=1)
    return tl.max(tl.where(b_got >= needed, b_key, NOTHING), axis=0)


@triton.jit
def _cut(
    listed,
    is_whole,
    p_few,
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
    FEW: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
    WIDTH: tl.constexpr,
    NUM_BINS: tl.constexpr,
):
    """The key of the token at which the listed ones from `low` to `high` reach `needed` > 0, which they do.

    Bins of keys, so that it does not matter how logits lie or how many are equal: each round leaves 8 bits less.
    """
    o_bin = tl.arange(0, NUM_BINS)
    tl.debug_barrier()
    tl.store(p_few + FEW, 0)
    tl.debug_barrier()
    num_few = _few(
        listed, is_whole, p_few, num_places, least, low, high, bins, -1, FEW, BLOCK, SEGMENT, WIDTH, NUM_BINS
    )
    while num_few > FEW:
        width, shift = high.to(tl.uint64) - low.to(tl.uint64), tl.zeros([], tl.uint64)
        while (width >> shift) >= NUM_BINS:
            shift += 1
        tl.debug_barrier()
        tl.store(p_bins + o_bin, tl.zeros([NUM_BINS], tl.int64))
        tl.store(p_few + FEW, 0)
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
        num_few = _few(
            listed, is_whole, p_few, num_places, least, low, high, bins, -1, FEW, BLOCK, SEGMENT, WIDTH, NUM_BINS
        )
    return _cut_few(p_few, num_few, largest, slope, needed, by_mass, FEW)


@triton.jit
def _lacks(num_kept, top_k, lo, least):
    """Whether fewer than top_k are listed by fault of the bracket: min_p may drop whatever is below it, and masked
    tokens, of which top_k may keep some, are never chosen."""
    return (num_kept < top_k) & (lo > LOWEST) & (lo > least)


@triton.jit(do_not_specialize=["num_chunks"])
def cut_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_records,  # [R, RECORD] fp32
    p_firm,  # [R] int64: the key, with noise, of a token that should be kept
    p_bins,  # [R, NUM_BINS] int64: amounts of open tokens
    p_counts,  # [R, num_chunks] int64: open tokens, and rivals × 2^32
    p_lists,  # [R, num_chunks, SEGMENT] int64 keys
    p_fews,  # [R, FEW + 1] int64
    p_found,  # [R, num_chunks, 2] int64: masses
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
    FEW: tl.constexpr,
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
    p_few = p_fews + i_row * (FEW + 1)
    listed = (p_row, p_lists + i_row * num_chunks * SEGMENT, p_counts + i_row * num_chunks, num_chunks, vocab_size)
    o_chunk, o_bin = tl.arange(0, WIDTH), tl.arange(0, NUM_BINS)
    m_chunk = o_chunk < num_chunks
    # what was there before the logits
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
    p_place = p_found + (i_row * num_chunks + o_chunk) * 2
    b_total, b_certain = tl.load(p_place, mask=m_chunk, other=0), tl.load(p_place + 1, mask=m_chunk, other=0)
    b_bins = tl.load(p_bins + i_row * NUM_BINS + o_bin)
    p_record = p_records + i_row * RECORD
    lo, least = tl.load(p_record), tl.load(p_record + 3)
    needs_mass, bins = tl.load(p_record + 6) > 0, load_bins(p_record)
    chosen = tl.load(p_firm + i_row)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, WIDTH)
    firm = load_finite(p_row + id_of(chosen), True)
    if temperature > 0:
        largest, slope = logit_of(best), slope_of(temperature)
        has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
        floor = tl.full([], NOTHING, tl.int64)
        b_open, b_rivals = (b_counts & 0xFFFFFFFF).to(tl.int32), (b_counts >> 32).to(tl.int32)
        num_open = (tl.max(b_open, axis=0) + 3) // 4 * (4 * WIDTH)  # places to look at
        num_rivals = (tl.max(b_rivals, axis=0) + 3) // 4 * (4 * WIDTH)
        is_full = tl.max(b_open + b_rivals, axis=0) > SEGMENT
        is_whole = is_full
        p_own_bins = p_bins + i_row * NUM_BINS
        for phase in range(4):  # top_k, then top_p, of the lists; and once more of the whole row, if they do not do
            by_mass, of_whole = (phase & 1) == 1, phase >= 2
            if tl.where(by_mass, has_p, has_k) & (of_whole == is_whole):
                num_places = tl.where(of_whole, vocab_size, num_open)
                is_found = False
                if (by_mass == needs_mass) & (not of_whole):  # the bins know
                    total, certain = tl.reduce((b_total, b_certain), 0, _add_two)
                    needed = tl.where(needs_mass, needed_mass(top_p, total) - certain, top_k)
                    b_through = tl.cumsum(b_bins, axis=0)
                    open_amount = tl.max(b_through, axis=0)
                    if needs_mass:
                        is_whole = (total > 0) & ((needed <= 0) | (open_amount < needed))
                    else:
                        is_whole = _lacks(open_amount, top_k, lo, least)
                    is_cut = (not is_whole) & (needed > 0) & (open_amount >= needed)
                    if is_cut:
                        i_bin = tl.sum((b_through < needed).to(tl.int32), axis=0)
                        above = tl.max(tl.where(b_through < needed, b_through, 0), axis=0)
                        num_few = _few(
                            listed,
                            False,
                            p_few,
                            num_places,
                            least,
                            floor,
                            best,
                            bins,
                            i_bin,
                            FEW,
                            BLOCK,
                            SEGMENT,
                            WIDTH,
                            NUM_BINS,
                        )
                        if num_few <= FEW:
                            floor = _cut_few(p_few, num_few, largest, slope, needed - above, by_mass, FEW)
                            is_found = True
                else:
                    got = _reached(
                        listed, of_whole, num_places, largest, slope, least, floor, by_mass, BLOCK, SEGMENT, WIDTH
                    )
                    needed = tl.where(by_mass, needed_mass(top_p, got), top_k)
                    is_cut = got >= needed
                if is_cut & (not is_found):
                    floor = _cut(
                        listed,
                        of_whole,
                        p_few,
                        p_own_bins,
                        num_places,
                        largest,
                        slope,
                        least,
                        floor,
                        best,
                        needed,
                        by_mass,
                        bins,
                        FEW,
                        BLOCK,
                        SEGMENT,
                        WIDTH,
                        NUM_BINS,
                    )
        # rivals are all that may be better than the firm token, as long as that is kept
        is_whole = is_full | (is_whole & (lo > least)) | (firm < least) | (key_of(firm, id_of(chosen)) < floor)
        if is_whole:
            num_rivals = vocab_size
            chosen = tl.full([], NOTHING, tl.int64)
        for start in range(0, num_rivals, NOISE_BLOCK):
            o = start + tl.arange(0, NOISE_BLOCK)
            b_key, b_logit, m = _listed(listed, is_whole, o, least, SEGMENT, WIDTH, RIVALS=True)
            m = m & (b_key >= floor)
            b_id = id_of(b_key).to(tl.int32)
            b_noisy = scaled(b_logit, largest, temperature) + gumbel_of_ids(seed, completion, position, b_id)
            chosen = tl.maximum(chosen, tl.max(tl.where(m, key_of(b_noisy, b_id), NOTHING), axis=0))
        # nothing is left where min_p is above 1
        best = tl.where(chosen == NOTHING, best, chosen)
    tl.store(p_out + i_row, id_of(best))
