"""Samples of a truncated distribution without sorting the vocabulary: what `truncate` of the reference keeps.

Four kernels, each of which leaves greedy rows alone:

    maxima    largest logit and about the whole mass of each chunk (in `sampling.py`)
    bracket   from a sample of the vocabulary, two logits between which the last kept token should stand
    sift      tokens above the bracket are kept for certain: their mass is added and noise decides among them;
              those inside are listed
    finish    the list is cut where the kept tokens end, exactly, and noise decides among all that is left

    | certain .............. | listed .... cut .... | dropped ......... |    tokens in order
                             hi                     lo

A bracket saves time and never changes the result: counts and masses are integers, and where they show that the cut lies
elsewhere, or the list has no room, `finish` takes the whole row for its list.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.native import IS_INTERPRETED, exp, fma_down, launch_dependents, log, wait
from outrider.kernels.noise import bits_block, bound_of_bits, gumbel_of_bits, gumbel_of_ids
from outrider.kernels.order import NOTHING, id_of, key_of, largest_of, load_finite, logit_of, monotonic, value_of

_SEGMENT = 64
_SAMPLE = 128 * _SEGMENT
"""Tokens the bracket looks at, in segments spread evenly."""

_MAX_CHUNKS = 256

_LIST_SIZE = 16384
_SMALL_LIST = 8192
_LIST_BLOCK = 4096
_NOISE_BLOCK = 1024
_SIFT_BLOCK = 1024

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def choose_random(
    logits: Tensor,
    maxima: Tensor,
    sums: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    columns: Columns,
    chunk: int,
) -> Tensor:
    """Tokens [num_rows] int64, at least one row; maxima and sums of each chunk are made already.

    columns: temperature, top_k, top_p, min_p, seeds, choices.
    """
    num_rows, vocab_size = logits.shape
    num_chunks = maxima.shape[1]

    def scratch(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    out = scratch(num_rows)
    brackets = scratch(num_rows, 2, dtype=torch.float32)
    num_listed = scratch(num_rows, dtype=torch.int32)
    listed = scratch(num_rows, _LIST_SIZE, dtype=torch.int32)
    found = scratch(num_rows, num_chunks, 3)
    temperature, top_k, top_p, min_p, seeds, choices = columns
    limits = (rows, temperature, top_k, top_p, min_p)
    keyed_by = (seeds, choices, positions)
    sizes = (logits.stride(0), vocab_size, num_chunks)
    assert num_chunks <= _MAX_CHUNKS, f"a vocabulary of {vocab_size} in chunks of {chunk}"
    shape = {"CHUNKS": _MAX_CHUNKS, "launch_pdl": True}
    _bracket_kernel[(num_rows,)](
        logits,
        maxima,
        sums,
        brackets,
        num_listed,
        *limits,
        *sizes,
        SAMPLE=_SAMPLE,
        SEGMENT=_SEGMENT,
        num_warps=8,
        **shape,
    )
    _sift_kernel[(num_rows, num_chunks)](
        logits,
        maxima,
        brackets,
        num_listed,
        listed,
        found,
        *limits,
        *keyed_by,
        *sizes,
        CHUNK=chunk,
        BLOCK=_SIFT_BLOCK,
        LIST_SIZE=_LIST_SIZE,
        num_warps=4,
        **shape,
    )
    _finish_kernel[(num_rows,)](
        logits,
        maxima,
        brackets,
        num_listed,
        listed,
        found,
        *limits,
        *keyed_by,
        out,
        *sizes,
        SMALL=_SMALL_LIST,
        BLOCK=_LIST_BLOCK,
        NOISE_BLOCK=_NOISE_BLOCK,
        LIST_SIZE=_LIST_SIZE,
        num_warps=16,
        **shape,
    )
    return out


@triton.jit
def _scaled(b, largest, temperature):
    """(logit - largest) / temperature, at most 0."""
    return tl.math.div_rn(b - tl.where(largest == float("-inf"), 0.0, largest) + 0.0, temperature)


@triton.jit
def _mass(b_scaled):
    """Weight in units of 2^-40 of the most likely token's, int64."""
    return (exp(b_scaled) * 1099511627776.0).to(tl.int64)


@triton.jit
def _split_mass(b_scaled):
    """_mass as two int32, upper bits and lower 20: adding 2^23, rounded down, leaves an integer in the mantissa."""
    b_weight = exp(b_scaled)
    if IS_INTERPRETED:
        b_mass = (b_weight * 1099511627776.0).to(tl.int64)
        return (b_mass >> 20).to(tl.int32), (b_mass & 0xFFFFF).to(tl.int32)
    else:
        b_high = fma_down(b_weight, 1048576.0, 8388608.0)
        b_rest = b_weight * 1048576.0 - (b_high - 8388608.0)  # exact
        b_low = fma_down(b_rest, 1048576.0, 8388608.0)
        return b_high.to(tl.int32, bitcast=True) - 0x4B000000, b_low.to(tl.int32, bitcast=True) - 0x4B000000


@triton.jit
def _joined_mass(b_high, b_low):
    """Sum of masses in halves."""
    return (tl.sum(b_high.to(tl.int64), axis=0) << 20) + tl.sum(b_low.to(tl.int64), axis=0)


@triton.jit
def _least(min_p):
    """The smallest scaled logit that min_p keeps."""
    return tl.where(min_p > 0, log(tl.where(min_p > 0, min_p, 1.0)), float("-inf"))


@triton.jit
def _needed(top_p, total):
    """The mass that top_p asks for: one token at least."""
    return tl.maximum(tl.ceil(top_p.to(tl.float64) * total.to(tl.float64)).to(tl.int64), 1)


@triton.jit
def _tail_end(b, b_weight, low, high, mass):
    """The largest scaled logit between low and high below which the weights add up to no more than `mass`."""
    for _ in range(14):
        middle = (low + high) * 0.5
        is_less = tl.sum(tl.where(b < middle, b_weight, 0.0), axis=0) <= mass
        low, high = tl.where(is_less, middle, low), tl.where(is_less, high, middle)
    return low


@triton.jit(do_not_specialize=["num_chunks"])
def _bracket_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, 2] fp32
    p_brackets,  # [R, 2] fp32: lo, hi
    p_num_listed,  # [R] int32
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    stride,
    vocab_size,
    num_chunks,
    SAMPLE: tl.constexpr,
    SEGMENT: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Floating point will do: a bracket is a guess."""
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    step = tl.maximum(vocab_size // (SAMPLE // SEGMENT), SEGMENT)
    o = tl.arange(0, SAMPLE)
    o_id = (o // SEGMENT) * step + o % SEGMENT
    m = o_id < vocab_size
    wait()
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    tl.store(p_num_listed + i_row, 0)
    if temperature > 0:
        top_k, top_p, min_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table), tl.load(p_min_p + i_table)
        has_k = (top_k > 0) & (top_k < vocab_size)
        lo, hi = tl.full([], float("-inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
        if has_k | (top_p < 1.0) | (min_p > 0):
            largest = logit_of(largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS))
            share = tl.minimum(SAMPLE / vocab_size.to(tl.float32), 1.0)  # of the vocabulary that is looked at
            b = load_finite(p_logits + i_row * stride + o_id, m)
            b = (b - tl.where(largest == float("-inf"), 0.0, largest)) / temperature
            least = _least(min_p)
            low, high = tl.full([], -64.0, tl.float32), tl.full([], 0.0, tl.float32)
            hi = tl.full([], float("inf"), tl.float32)
            if has_k:
                expected = top_k.to(tl.float32) * share
                wanted = tl.where(share < 1.0, expected + 6.0 * tl.sqrt(expected) + 6.0, expected)
                for _ in range(14):
                    middle = (low + high) * 0.5
                    is_enough = tl.sum((m & (b >= middle)).to(tl.float32), axis=0) >= wanted
                    low, high = tl.where(is_enough, middle, low), tl.where(is_enough, high, middle)
                lo = low
            elif top_p < 1.0:
                o_chunk = tl.arange(0, CHUNKS)
                m_chunk = o_chunk < num_chunks
                p_sum = p_sums + (i_row * num_chunks + o_chunk) * 2
                b_anchor = tl.load(p_sum, mask=m_chunk, other=float("-inf"))
                b_factor = tl.exp(tl.minimum((b_anchor - largest) / temperature, 0.0))
                total = tl.sum(tl.where(m_chunk, tl.load(p_sum + 1, mask=m_chunk, other=0.0) * b_factor, 0.0), axis=0)
                b_weight = tl.where(m, tl.exp(b), 0.0)
                dropped = tl.sum(tl.where(b < least, b_weight, 0.0), axis=0) / share
                tail = (1.0 - top_p) * (total - dropped) + dropped  # mass behind the cut
                # a token that weighs more than this may be missing in the sample and still matter
                heaviest = tl.where(share < 1.0, tl.log(tl.maximum(tail, 1e-30) / 512.0), 0.0)
                high = tl.minimum(high, tl.maximum(heaviest, low))
                middle = _tail_end(b, b_weight, low, high, tail * share)
                b_square = tl.where(b < middle, b_weight * b_weight, 0.0)
                spread = tl.where(share < 1.0, 5.0 * tl.sqrt(tl.sum(b_square, axis=0)) / share, 0.0) + 0.01 * tail
                lo = _tail_end(b, b_weight, low, high, tl.maximum(tail - spread, 0.1 * tail) * share)
                above = tl.sum((m & (b >= lo)).to(tl.float32), axis=0) / share
                end = _tail_end(b, b_weight, low, high, (tail + spread) * share) + 0.004
                below = tl.sum(tl.where(b < end, b_weight, 0.0), axis=0) / share
                if (above > 1024.0) & (below >= tail + 0.9 * spread):
                    hi = end * temperature + largest
            else:
                if tl.sum((m & (b >= least)).to(tl.float32), axis=0) / share > 1024.0:
                    hi = tl.full([], float("-inf"), tl.float32)
            lo = tl.where(lo <= -63.9, float("-inf"), lo * temperature + largest)
        tl.store(p_brackets + i_row * 2, lo)
        tl.store(p_brackets + i_row * 2 + 1, hi)


@triton.jit(do_not_specialize=["num_chunks"])
def _sift_kernel(
    p_logits,
    p_maxima,
    p_brackets,
    p_num_listed,
    p_listed,  # [R, LIST_SIZE] int32, ids in any order
    p_found,  # [R, num_chunks, 3] int64: mass that min_p keeps, mass and best key (with noise) of certain tokens
    p_rows,
    p_temperature,
    p_top_k,
    p_top_p,
    p_min_p,
    p_seeds,
    p_choices,
    p_positions,
    stride,
    vocab_size,
    num_chunks,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    launch_dependents()
    i_row, i_chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    wait()
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    if temperature > 0:
        top_k, least = tl.load(p_top_k + i_table), _least(tl.load(p_min_p + i_table))
        needs_mass = (tl.load(p_top_p + i_table) < 1.0) & ((top_k <= 0) | (top_k >= vocab_size))
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        lo, hi = tl.load(p_brackets + i_row * 2), tl.load(p_brackets + i_row * 2 + 1)
        largest = logit_of(largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS))
        best = tl.full([], float("-inf"), tl.float32)
        best_id = tl.full([], -1, tl.int32)
        # masses in two halves of 20 bits, whose sums over a chunk fit an int32
        b_total, b_total_low = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
        b_certain, b_certain_low = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
        first, end = i_chunk * CHUNK, tl.minimum(i_chunk * CHUNK + CHUNK, vocab_size)
        p_row = p_logits + i_row * stride + tl.arange(0, BLOCK)
        b_next = load_finite(p_row + first, first + tl.arange(0, BLOCK) < vocab_size)
        for start in range(first, end, BLOCK):
            o_id = start + tl.arange(0, BLOCK)
            m = o_id < vocab_size
            b_logit = b_next
            b_next = load_finite(p_row + start + BLOCK, o_id + BLOCK < end)
            b = _scaled(b_logit, largest, temperature)
            m = m & (b >= least)
            m_certain = m & (b_logit >= hi)
            m_open = m & (b_logit >= lo) & (b_logit < hi)
            if needs_mass:
                b_high, b_low = _split_mass(b)
                b_total += tl.where(m, b_high, 0)
                b_total_low += tl.where(m, b_low, 0)
                b_certain += tl.where(m_certain, b_high, 0)
                b_certain_low += tl.where(m_certain, b_low, 0)
            counts = tl.sum(m_open.to(tl.int32) + m_certain.to(tl.int32) * 65536, axis=0)
            if counts >= 65536:
                b_bits = bits_block(seed, choice, position, start // 4, BLOCK)
                # the logarithms are only taken where one of the block may be the best so far
                if tl.max(tl.where(m_certain, b + bound_of_bits(b_bits), float("-inf")), axis=0) >= best:
                    b_noisy = tl.where(m_certain, b + gumbel_of_bits(b_bits), float("-inf"))
                    best_here = tl.max(b_noisy, axis=0)
                    if (best_here > best) | (best_id < 0):
                        best = best_here
                        best_id = tl.min(tl.where(m_certain & (b_noisy == best_here), o_id, 0x7FFFFFFF), axis=0)
            num_open = counts & 0xFFFF
            if num_open > 0:
                o_place = tl.atomic_add(p_num_listed + i_row, num_open) + tl.cumsum(m_open.to(tl.int32), axis=0) - 1
                tl.store(p_listed + i_row * LIST_SIZE + o_place, o_id, mask=m_open & (o_place < LIST_SIZE))
        p_place = p_found + (i_row * num_chunks + i_chunk) * 3
        tl.store(p_place, _joined_mass(b_total, b_total_low))
        tl.store(p_place + 1, _joined_mass(b_certain, b_certain_low))
        tl.store(p_place + 2, tl.where(best_id >= 0, key_of(best + 0.0, best_id), NOTHING))


@triton.jit
def _listed(p_logits, p_list, is_whole, num_listed, o, largest, temperature, least):
    """Ids, logits, scaled logits and mask of the listed tokens that min_p keeps, at places `o`."""
    m = o < num_listed
    b_id = o
    if not is_whole:
        b_id = tl.load(p_list + o, mask=m, other=0)
    b_logit = load_finite(p_logits + b_id, m)
    b = _scaled(b_logit, largest, temperature)
    return b_id, b_logit, b, m & (b >= least)


@triton.jit
def _amount(b_scaled, by_mass):
    """What a token counts for: its mass, or 1."""
    return tl.where(by_mass, _mass(b_scaled), 1)


@triton.jit
def _reached(
    p_logits, p_list, is_whole, num_listed, largest, temperature, least, floor, at_least, by_mass, BLOCK: tl.constexpr
):
    """Amount of the listed tokens with keys of `floor` or more and logits of `at_least` (monotonic) or more."""
    b_sum = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        b_id, b_logit, b, m = _listed(
            p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), largest, temperature, least
        )
        m = m & (key_of(b_logit, b_id) >= floor) & (monotonic(b_logit) >= at_least)
        b_sum += tl.where(m, _amount(b, by_mass), 0)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _num_ties(p_logits, p_list, is_whole, num_listed, largest, temperature, least, tied, up_to, BLOCK: tl.constexpr):
    """Listed tokens with the (monotonic) logit `tied` and ids up to `up_to`."""
    b_sum = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_listed, BLOCK):
        b_id, b_logit, _, m = _listed(
            p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), largest, temperature, least
        )
        b_sum += (m & (monotonic(b_logit) == tied) & (b_id <= up_to)).to(tl.int32)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _cut(
    p_logits,
    p_list,
    is_whole,
    num_listed,
    largest,
    temperature,
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
        got = _reached(
            p_logits, p_list, is_whole, num_listed, largest, temperature, least, floor, middle, by_mass, BLOCK
        )
        if got >= needed:
            low = middle
        else:
            high = middle - 1
            above = got
    tied = low.to(tl.int32)
    each = tl.maximum(_amount(_scaled(value_of(tied), largest, temperature), by_mass), 1)
    missing = (needed - above + each - 1) // each
    # of equal logits, as many as are missing, by id
    first, last = tl.zeros([], tl.int32), tl.zeros([], tl.int32) + (vocab_size - 1)
    if _num_ties(p_logits, p_list, is_whole, num_listed, largest, temperature, least, tied, last, BLOCK) <= missing:
        first = last
    while first < last:
        middle_id = first + ((last - first) >> 1)
        if (
            _num_ties(p_logits, p_list, is_whole, num_listed, largest, temperature, least, tied, middle_id, BLOCK)
            >= missing
        ):
            last = middle_id
        else:
            first = middle_id + 1
    return (tied.to(tl.int64) << 32) | (0xFFFFFFFF - first.to(tl.int64))


@triton.jit
def _cut_block(b_high, b_id, b_amount, m, needed, vocab_size):
    """The same for one block of tokens `m` with monotonic logits b_high, which stays in registers."""
    low = tl.min(tl.where(m, b_high, 0x7FFFFFFF), axis=0).to(tl.int64)
    high = tl.max(tl.where(m, b_high, -0x80000000), axis=0).to(tl.int64)
    above = tl.zeros([], tl.int64)
    while low < high:
        middle = low + ((high - low + 1) >> 1)
        got = tl.sum(tl.where(m & (b_high >= middle.to(tl.int32)), b_amount, 0), axis=0)
        if got >= needed:
            low = middle
        else:
            high = middle - 1
            above = got
    m_tied = m & (b_high == low.to(tl.int32))
    each = tl.maximum(tl.max(tl.where(m_tied, b_amount, 0), axis=0), 1)
    missing = (needed - above + each - 1) // each
    first, last = tl.zeros([], tl.int32), tl.zeros([], tl.int32) + (vocab_size - 1)
    if tl.sum(m_tied.to(tl.int32), axis=0) <= missing:
        first = last
    while first < last:
        middle_id = first + ((last - first) >> 1)
        if tl.sum((m_tied & (b_id <= middle_id)).to(tl.int32), axis=0) >= missing:
            last = middle_id
        else:
            first = middle_id + 1
    return (low << 32) | (0xFFFFFFFF - first.to(tl.int64))


@triton.jit
def _lacks(num_kept, top_k, lo, largest, temperature, least):
    """Whether fewer than top_k are listed by fault of the bracket: min_p may drop whatever is below it."""
    return (num_kept < top_k) & (lo > float("-inf")) & (_scaled(lo, largest, temperature) >= least)


@triton.jit(do_not_specialize=["num_chunks"])
def _finish_kernel(
    p_logits,
    p_maxima,
    p_brackets,
    p_num_listed,
    p_listed,
    p_found,
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
    SMALL: tl.constexpr,
    BLOCK: tl.constexpr,
    NOISE_BLOCK: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    wait()
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    best = largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS)
    if temperature > 0:
        largest = logit_of(best)
        top_k, top_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table)
        least = _least(tl.load(p_min_p + i_table))
        has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
        p_row, p_list = p_logits + i_row * stride, p_listed + i_row * LIST_SIZE
        o_chunk = tl.arange(0, CHUNKS)
        m_chunk = o_chunk < num_chunks
        p_place = p_found + (i_row * num_chunks + o_chunk) * 3
        total = tl.sum(tl.load(p_place, mask=m_chunk, other=0), axis=0)
        certain = tl.sum(tl.load(p_place + 1, mask=m_chunk, other=0), axis=0)
        chosen = tl.max(tl.load(p_place + 2, mask=m_chunk, other=NOTHING), axis=0)
        num_listed = tl.load(p_num_listed + i_row)
        lo = tl.load(p_brackets + i_row * 2)
        floor = tl.full([], NOTHING, tl.int64)
        everything = tl.full([], -0x80000000, tl.int64)
        is_whole = num_listed > LIST_SIZE
        is_small = num_listed <= SMALL
        if is_small:
            b_id, b_logit, b, m = _listed(
                p_row, p_list, False, num_listed, tl.arange(0, SMALL), largest, temperature, least
            )
            b_high = monotonic(b_logit)
            if has_k:
                num_kept = tl.sum(m.to(tl.int32), axis=0)
                is_whole = _lacks(num_kept, top_k, lo, largest, temperature, least)
                if num_kept > top_k:
                    floor = _cut_block(b_high, b_id, m.to(tl.int64), m, top_k, vocab_size)
                    m = m & (key_of(b_logit, b_id) >= floor)
            if has_p:
                b_mass = tl.where(m, _mass(b), 0)
                listed = tl.sum(b_mass, axis=0)
                if has_k:
                    total = listed
                needed = _needed(top_p, total) - certain
                if total > 0:
                    is_whole |= (needed <= 0) | (listed < needed)
                    if (needed > 0) & (listed >= needed):
                        floor = tl.maximum(floor, _cut_block(b_high, b_id, b_mass, m, needed, vocab_size))
        else:
            num_listed = tl.minimum(num_listed, LIST_SIZE)
            listed = _reached(
                p_row, p_list, False, num_listed, largest, temperature, least, floor, everything, has_p & ~has_k, BLOCK
            )
            if has_k:
                is_whole |= _lacks(listed, top_k, lo, largest, temperature, least)
            elif has_p:
                needed = _needed(top_p, total)
                is_whole |= ((certain >= needed) | (certain + listed < needed)) & (total > 0)
        if is_whole:
            num_listed = vocab_size
            certain = tl.zeros([], tl.int64)
            chosen = tl.full([], NOTHING, tl.int64)
            floor = tl.full([], NOTHING, tl.int64)
        for phase in range(2):  # top_k, then top_p
            by_mass = phase == 1
            if (is_whole | ~is_small) & tl.where(by_mass, has_p, has_k):
                got = _reached(
                    p_row, p_list, is_whole, num_listed, largest, temperature, least, floor, everything, by_mass, BLOCK
                )
                if has_k:
                    total = got
                needed = tl.where(by_mass, _needed(top_p, total) - certain, top_k)
                if got >= needed:
                    floor = _cut(
                        p_row,
                        p_list,
                        is_whole,
                        num_listed,
                        largest,
                        temperature,
                        least,
                        floor,
                        needed,
                        vocab_size,
                        by_mass,
                        BLOCK,
                    )
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        for start in range(0, num_listed, NOISE_BLOCK):
            b_id, b_logit, b, m = _listed(
                p_row, p_list, is_whole, num_listed, start + tl.arange(0, NOISE_BLOCK), largest, temperature, least
            )
            m = m & (key_of(b_logit, b_id) >= floor)
            b_noisy = b + gumbel_of_ids(seed, choice, position, b_id)
            chosen = tl.maximum(chosen, tl.max(tl.where(m, key_of(b_noisy, b_id), NOTHING), axis=0))
        # nothing is left where min_p is above 1
        best = tl.where(chosen == NOTHING, best, chosen)
    tl.store(p_out + i_row, id_of(best))
