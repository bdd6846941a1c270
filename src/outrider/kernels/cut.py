"""Where a row is cut, exactly, and which of the kept tokens is chosen: the last step of a random row.

The cut is looked for among the open tokens, and noise decides among the rivals that are kept (`sift.py` says what
these are). Counts and masses are integers, and where they show that the cut lies elsewhere, that the firm token is not
kept or that a list had no room, the whole row is taken.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

from outrider.kernels.mass import mass_of, needed_mass, scaled, slope_of, weight_of
from outrider.kernels.native import launch_dependents, wait
from outrider.kernels.noise import gumbel_of_ids
from outrider.kernels.order import NOTHING, id_of, key_of, largest_of, load_finite, logit_of, monotonic, value_of


@triton.jit
def _listed(p_logits, p_list, is_whole, num_listed, o, least):
    """Keys, logits and mask of the listed tokens, or of those of the row, that min_p keeps, at places `o`."""
    m = o < num_listed
    if is_whole:  # noqa: SIM108 (a choice of Triton's own computes both)
        b_key = key_of(load_finite(p_logits + o, m), o)
    else:
        b_key = tl.load(p_list + o, mask=m, other=NOTHING)
    b_logit = logit_of(b_key)
    return b_key, b_logit, m & (b_logit >= least)


@triton.jit
def _amount(b, largest, slope, by_mass):
    """What a token counts for: its mass, or 1."""
    return tl.where(by_mass, mass_of(b, largest, slope), 1)


@triton.jit
def _reached(
    p_logits, p_list, is_whole, num_listed, largest, slope, least, floor, at_least, by_mass, BLOCK: tl.constexpr
):
    """Amount of the listed tokens with keys of `floor` or more and logits of `at_least` (monotonic) or more."""
    b_sum = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        b_key, b_logit, m = _listed(p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), least)
        m = m & (b_key >= floor) & (monotonic(b_logit) >= at_least)
        b_sum += tl.where(m, _amount(b_logit, largest, slope, by_mass), 0)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _num_ties(p_logits, p_list, is_whole, num_listed, least, tied, up_to, BLOCK: tl.constexpr):
    """Listed tokens with the (monotonic) logit `tied` and ids up to `up_to`."""
    b_sum = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_listed, BLOCK):
        b_key, b_logit, m = _listed(p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), least)
        b_sum += (m & (monotonic(b_logit) == tied) & (id_of(b_key) <= up_to)).to(tl.int32)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _cut(
    p_logits,
    p_list,
    is_whole,
    num_listed,
    largest,
    slope,
    least,
    floor,
    needed,
    vocab_size,
    by_mass,
    BLOCK: tl.constexpr,
):
    """The key of the token at which the listed ones of `floor` or more reach `needed` > 0, which they do."""
    # the largest logit at which it is reached; int64, in which no difference of int32 overflows
    low = tl.full([], -0x80000000, tl.int64)
    high = monotonic(largest).to(tl.int64)
    above = tl.zeros([], tl.int64)  # amount of the logits that are larger than `high`
    while low < high:
        middle = low + ((high - low + 1) >> 1)
        got = _reached(p_logits, p_list, is_whole, num_listed, largest, slope, least, floor, middle, by_mass, BLOCK)
        if got >= needed:
            low = middle
        else:
            high = middle - 1
            above = got
    tied = low.to(tl.int32)
    each = tl.maximum(_amount(value_of(tied), largest, slope, by_mass), 1)
    missing = (needed - above + each - 1) // each
    # of equal logits, as many as are missing, by id
    first, last = tl.zeros([], tl.int32), tl.zeros([], tl.int32) + (vocab_size - 1)
    if _num_ties(p_logits, p_list, is_whole, num_listed, least, tied, last, BLOCK) <= missing:
        first = last
    while first < last:
        middle_id = first + ((last - first) >> 1)
        if _num_ties(p_logits, p_list, is_whole, num_listed, least, tied, middle_id, BLOCK) >= missing:
            last = middle_id
        else:
            first = middle_id + 1
    return (tied.to(tl.int64) << 32) | (0xFFFFFFFF - first.to(tl.int64))


@triton.jit
def _cut_few(p_logits, p_list, num_listed, largest, slope, least, floor, needed, by_mass, FEW: tl.constexpr):
    """The same for at most FEW tokens, by comparing each with each: NOTHING if they do not reach `needed`."""
    o = tl.arange(0, FEW)
    b_key, _, _ = _listed(p_logits, p_list, False, num_listed, o[:, None], least)
    b_other, b_logit, m = _listed(p_logits, p_list, False, num_listed, o[None, :], least)
    b_amount = tl.where(m & (b_other >= floor), _amount(b_logit, largest, slope, by_mass), 0)
    b_got = tl.sum(tl.where(b_other >= b_key, b_amount, 0), axis=1)
    b_key = tl.max(b_key, axis=1)
    return tl.max(tl.where((b_key >= floor) & (b_got >= needed), b_key, NOTHING), axis=0)


@triton.jit
def _add_three(a, b, c, d, e, f):
    return a + d, b + e, c + f


@triton.jit
def _focus(
    p_logits,
    p_list,
    p_few,  # their keys
    num_listed,
    top,
    bottom,
    upper,
    lower,
    base,
    largest,
    slope,
    least,
    floor,
    needed,
    by_mass,
    FEW: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BINS: tl.constexpr,
):
    """Of a list, the few tokens around the place where `needed` is reached, guessed from a histogram of [bottom, top].

    It is reached by logits of `lower` or more below `upper`, and `base` is the amount of `upper` or more. Returns the
    number of the few, exact amounts of those above them, of them and of those below them, and their bounds likewise.
    """
    o_bin = tl.arange(0, NUM_BINS)
    scale = NUM_BINS / tl.maximum(top - bottom, 1e-30)
    b_count, b_sum = tl.zeros([NUM_BINS], tl.int32), tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        b_key, b_logit, m = _listed(p_logits, p_list, False, num_listed, start + tl.arange(0, BLOCK), least)
        m = m & (b_key >= floor) & (b_logit < upper) & (b_logit >= lower)
        b_sum += tl.where(m, _amount(b_logit, largest, slope, by_mass), 0)
        b_bin = tl.minimum(tl.maximum((top - b_logit) * scale, 0.0), NUM_BINS - 1.0).to(tl.int32)
        b_count += tl.histogram(b_bin, NUM_BINS, mask=m)
    # what remains below the cut is counted from below, for what is heavy stands above it and would be guessed worst
    rest = tl.sum(b_sum, axis=0) - (needed - base)
    b_middle = top - (o_bin.to(tl.float32) + 0.5) / scale
    b_guess = b_count.to(tl.float32) * tl.where(by_mass, weight_of(b_middle, largest, slope) * 1099511627776.0, 1.0)
    b_from_below = tl.cumsum(b_guess, axis=0, reverse=True)
    i_bin = tl.maximum(tl.sum((b_from_below > rest.to(tl.float32)).to(tl.int32), axis=0) - 1, 0)
    # half of FEW around the middle of that bin, and whole bins
    b_through = tl.cumsum(b_count, axis=0)
    middle = tl.sum(tl.where(o_bin < i_bin, b_count, 0) + tl.where(o_bin == i_bin, b_count // 2, 0), axis=0)
    i_upper = tl.minimum(tl.sum((b_through < middle - FEW // 4).to(tl.int32), axis=0), i_bin)
    i_lower = tl.maximum(tl.sum((b_through < middle + FEW // 4).to(tl.int32), axis=0), i_bin + 1)
    upper = tl.where(i_upper > 0, top - i_upper.to(tl.float32) / scale, upper)
    lower = tl.where(i_lower < NUM_BINS, top - i_lower.to(tl.float32) / scale, lower)
    b_above, b_inside, b_below = tl.zeros([BLOCK], tl.int64), tl.zeros([BLOCK], tl.int64), tl.zeros([BLOCK], tl.int64)
    num_few = tl.zeros([], tl.int32)
    for start in range(0, num_listed, BLOCK):
        b_key, b_logit, m = _listed(p_logits, p_list, False, num_listed, start + tl.arange(0, BLOCK), least)
        m = m & (b_key >= floor)
        b_amount = tl.where(m, _amount(b_logit, largest, slope, by_mass), 0)
        m_inside = m & (b_logit < upper) & (b_logit >= lower)
        b_above += tl.where(b_logit >= upper, b_amount, 0)
        b_inside += tl.where(m_inside, b_amount, 0)
        b_below += tl.where(b_logit < lower, b_amount, 0)
        b_place = num_few + tl.cumsum(m_inside.to(tl.int32), axis=0) - 1
        tl.store(p_few + b_place, b_key, mask=m_inside & (b_place < FEW))
        num_few += tl.sum(m_inside.to(tl.int32), axis=0)
    above, inside, below = tl.reduce((b_above, b_inside, b_below), 0, _add_three)
    tl.debug_barrier()
    return num_few, above, inside, below, upper, lower


@triton.jit
def _lacks(num_kept, top_k, lo, least):
    """Whether fewer than top_k are listed by fault of the bracket: min_p may drop whatever is below it."""
    return (num_kept < top_k) & (lo > float("-inf")) & (lo > least)


@triton.jit(do_not_specialize=["num_chunks", "num_sifts"])
def cut_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_records,  # [R, RECORD] fp32
    p_firm,  # [R] int64: the key, with noise, of a token that should be kept
    p_counts,  # [R] int64: open tokens, and rivals × 2^32
    p_open,  # [R, LIST_SIZE + FEW] int64 keys
    p_rivals,  # [R, LIST_SIZE] int64 keys
    p_found,  # [R, num_sifts, 2] int64: masses
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    p_seeds,
    p_choices,
    p_positions,
    p_out,  # [R] int64
    stride,
    vocab_size,
    num_chunks,
    num_sifts,
    FEW: tl.constexpr,
    BLOCK: tl.constexpr,
    NOISE_BLOCK: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    NUM_BINS: tl.constexpr,
    RECORD: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    p_row = p_logits + i_row * stride
    p_list, p_rival = p_open + i_row * (LIST_SIZE + FEW), p_rivals + i_row * LIST_SIZE
    o_chunk = tl.arange(0, CHUNKS)
    m_chunk = o_chunk < num_sifts
    wait()
    i_table = tl.load(p_rows + i_row)
    counts = tl.load(p_counts + i_row)
    num_open, num_rivals = (counts & 0xFFFFFFFF).to(tl.int32), (counts >> 32).to(tl.int32)
    p_record = p_records + i_row * RECORD
    lo, least = tl.load(p_record), tl.load(p_record + 3)
    needs_mass, is_noisy = tl.load(p_record + 6) > 0, tl.load(p_record + 7) > 0
    temperature = tl.load(p_temperature + i_table)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS)
    if temperature > 0:
        largest, slope = logit_of(best), slope_of(temperature)
        top_k, top_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table)
        has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
        floor = tl.full([], NOTHING, tl.int64)
        everything, none = tl.full([], -0x80000000, tl.int64), tl.zeros([], tl.int64)
        is_whole = num_open > LIST_SIZE
        total, certain = tl.zeros([], tl.int64), tl.zeros([], tl.int64)
        if needs_mass:
            p_place = p_found + (i_row * num_sifts + o_chunk) * 2
            total = tl.sum(tl.load(p_place, mask=m_chunk, other=0), axis=0)
            certain = tl.sum(tl.load(p_place + 1, mask=m_chunk, other=0), axis=0)
        for phase in range(2):  # top_k, then top_p
            by_mass = phase == 1
            if tl.where(by_mass, has_p, has_k) & (not is_whole):
                if by_mass & has_k:
                    total = _reached(
                        p_row, p_list, False, num_open, largest, slope, least, floor, everything, by_mass, BLOCK
                    )
                needed = tl.where(by_mass, needed_mass(top_p, total) - certain, top_k)
                num_few, above, inside, below, place = num_open, none, none, none, 0
                if num_open <= FEW:
                    inside = _reached(
                        p_row, p_list, False, num_open, largest, slope, least, floor, everything, by_mass, FEW
                    )
                else:
                    place = LIST_SIZE
                    top = tl.minimum(tl.load(p_record + 1), largest)
                    bottom = tl.maximum(lo, top - 92.0 / slope)
                    upper, lower = tl.full([], float("inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
                    base, num_tries = none, 0
                    while num_tries < 6:
                        num_few, above, inside, below, from_upper, to_lower = _focus(
                            p_row,
                            p_list,
                            p_list + LIST_SIZE,
                            num_open,
                            top,
                            bottom,
                            upper,
                            lower,
                            base,
                            largest,
                            slope,
                            least,
                            floor,
                            needed,
                            by_mass,
                            FEW,
                            BLOCK,
                            NUM_BINS,
                        )
                        num_tries += 1
                        if above >= needed:
                            lower = from_upper
                        elif above + inside < needed:
                            upper, base = to_lower, above + inside
                        elif num_few > FEW:
                            upper, lower, base = from_upper, to_lower, above
                        else:
                            num_tries = 8
                        top, bottom = tl.minimum(top, upper), tl.maximum(bottom, lower)
                if by_mass:
                    is_whole = (total > 0) & ((needed <= 0) | (above + inside + below < needed))
                else:
                    is_whole = _lacks(above + inside + below, top_k, lo, least)
                if (not is_whole) & (needed > 0) & (above + inside + below >= needed):
                    if (num_few <= FEW) & (above < needed) & (above + inside >= needed):
                        cut = _cut_few(
                            p_row, p_list + place, num_few, largest, slope, least, floor, needed - above, by_mass, FEW
                        )
                    else:  # many are equal
                        cut = _cut(
                            p_row,
                            p_list,
                            False,
                            num_open,
                            largest,
                            slope,
                            least,
                            floor,
                            needed,
                            vocab_size,
                            by_mass,
                            BLOCK,
                        )
                    floor = tl.maximum(floor, cut)
        if is_whole:
            num_open = vocab_size
            floor = tl.full([], NOTHING, tl.int64)
            for phase in range(2):
                by_mass = phase == 1
                if tl.where(by_mass, has_p, has_k):
                    got = _reached(
                        p_row, p_list, True, num_open, largest, slope, least, floor, everything, by_mass, BLOCK
                    )
                    total = got
                    needed = tl.where(by_mass, needed_mass(top_p, total), top_k)
                    if got >= needed:
                        floor = _cut(
                            p_row,
                            p_list,
                            True,
                            num_open,
                            largest,
                            slope,
                            least,
                            floor,
                            needed,
                            vocab_size,
                            by_mass,
                            BLOCK,
                        )
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        # rivals are all that may be better than the firm token, as long as that is kept; or all tokens from lo on
        chosen = tl.full([], NOTHING, tl.int64)
        is_whole = (num_rivals > LIST_SIZE) | (is_whole & (lo > least))
        if is_noisy:
            chosen = tl.load(p_firm + i_row)
            firm = load_finite(p_row + id_of(chosen), True)
            is_whole |= (firm < least) | (key_of(firm, id_of(chosen)) < floor)
        if is_whole:
            num_rivals = vocab_size
            chosen = tl.full([], NOTHING, tl.int64)
        o = tl.arange(0, NOISE_BLOCK)
        b_key, b_logit, m = _listed(p_row, p_rival, is_whole, num_rivals, o, least)
        for _ in range(0, num_rivals, NOISE_BLOCK):
            o += NOISE_BLOCK
            b_next, b_next_logit, m_next = _listed(p_row, p_rival, is_whole, num_rivals, o, least)
            b_id = id_of(b_key).to(tl.int32)
            b_noisy = scaled(b_logit, largest, temperature) + gumbel_of_ids(seed, choice, position, b_id)
            b_noisy_key = tl.where(m & (b_key >= floor), key_of(b_noisy, b_id), NOTHING)
            chosen = tl.maximum(chosen, tl.max(b_noisy_key, axis=0))
            b_key, b_logit, m = b_next, b_next_logit, m_next
        # nothing is left where min_p is above 1
        best = tl.where(chosen == NOTHING, best, chosen)
    tl.store(p_out + i_row, id_of(best))
