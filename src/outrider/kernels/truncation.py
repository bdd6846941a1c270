"""Samples of a truncated distribution without sorting the vocabulary: what `truncate` of the reference keeps.

Four kernels, each of which leaves greedy rows alone:

    maxima    largest logit and about the whole mass of each chunk (in `sampling.py`)
    bracket   from a sample of the vocabulary, two logits between which the last kept token should stand, and one
              token that should be kept, with its noise: the firm one
    sift      masses are added, tokens inside the bracket are listed, and so are rivals: tokens whose random word says
              that they may be better than the firm one
    finish    the list is cut where the kept tokens end, exactly, and noise decides among the rivals that are left

    | certain .............. | listed .... cut .... | dropped ......... |    tokens in order
                             hi                     lo

Bracket and firm token save time and never change the result: counts and masses are integers, and where they show that
the cut lies elsewhere or that the firm token is not kept, or a list has no room, `finish` takes the whole row.

A mass is made by the GPU's own rough exponential: it differs from a CPU's in the last bits, as everything there does.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.native import IS_INTERPRETED, fma_down, launch_dependents, log, rough_exp2, wait
from outrider.kernels.noise import bits_of_groups, bound_of_bits, gumbel_of_ids
from outrider.kernels.order import NOTHING, id_of, key_of, largest_of, load_finite, logit_of, monotonic, value_of

_SEGMENT = 64
_SAMPLE = 128 * _SEGMENT
"""Tokens the bracket looks at, in segments spread evenly."""

_MAX_CHUNKS = 512

_LIST_SIZE = 16384
_SMALL_LIST = 8192
_LIST_BLOCK = 4096
_NOISE_BLOCK = 512
_SIFT_TILE = 512
_SIFT_TILES = 8
_MAX_RIVALS = 4096
_RECORD = 8
_FEW_ROWS = 32

_OFFSET = tl.constexpr(0x4B000000)
"""Bits of 2^23."""

Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def choose_random(
    logits: Tensor,
    maxima: Tensor,
    sums: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    columns: Columns,
) -> Tensor:
    """Tokens [num_rows] int64, at least one row; maxima and sums of each chunk are made already.

    columns: temperature, top_k, top_p, min_p, seeds, choices.
    """
    num_rows, vocab_size = logits.shape
    num_chunks = maxima.shape[1]

    def scratch(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    out = scratch(num_rows)
    brackets = scratch(num_rows, _RECORD, dtype=torch.float32)
    firm = scratch(num_rows)
    counts = scratch(num_rows, 2, dtype=torch.int32)
    listed = scratch(num_rows, _LIST_SIZE, dtype=torch.int32)
    rivals = scratch(num_rows, _MAX_RIVALS, dtype=torch.int32)
    sift_tiles = 1 if num_rows <= _FEW_ROWS else _SIFT_TILES
    num_sifts = triton.cdiv(vocab_size, sift_tiles * _SIFT_TILE)
    found = scratch(num_rows, num_sifts, 2)
    temperature, top_k, top_p, min_p, seeds, choices = columns
    limits = (rows, temperature, top_k, top_p, min_p)
    keyed_by = (seeds, choices, positions)
    sizes = (logits.stride(0), vocab_size, num_chunks)
    assert max(num_chunks, num_sifts) <= _MAX_CHUNKS, f"a vocabulary of {vocab_size} is too large"
    shape = {"CHUNKS": _MAX_CHUNKS, "launch_pdl": True}
    _bracket_kernel[(num_rows,)](
        logits,
        maxima,
        sums,
        brackets,
        firm,
        counts,
        *limits,
        *keyed_by,
        *sizes,
        SAMPLE=_SAMPLE,
        SEGMENT=_SEGMENT,
        num_warps=8,
        maxnreg=128,
        **shape,
    )
    _sift_kernel[(num_rows, num_sifts)](
        logits,
        brackets,
        counts,
        listed,
        rivals,
        found,
        rows,
        *keyed_by,
        logits.stride(0),
        vocab_size,
        TILES=sift_tiles,
        TILE=_SIFT_TILE,
        LIST_SIZE=_LIST_SIZE,
        MAX_RIVALS=_MAX_RIVALS,
        num_warps=4,
        maxnreg=64,
        launch_pdl=True,
    )
    _finish_kernel[(num_rows,)](
        logits,
        maxima,
        brackets,
        firm,
        counts,
        listed,
        rivals,
        found,
        *limits,
        *keyed_by,
        out,
        *sizes,
        num_sifts,
        SMALL=_SMALL_LIST,
        BLOCK=_LIST_BLOCK,
        NOISE_BLOCK=_NOISE_BLOCK,
        LIST_SIZE=_LIST_SIZE,
        MAX_RIVALS=_MAX_RIVALS,
        num_warps=16,
        **shape,
    )
    return out


@triton.jit
def _scaled(b, largest, temperature):
    """(logit - largest) / temperature, at most 0."""
    return tl.math.div_rn(b - tl.where(largest == float("-inf"), 0.0, largest) + 0.0, temperature)


@triton.jit
def weight_of(b, largest, slope):
    """About exp((logit - largest) / temperature), at most 1: one element-wise function, so the same bits anywhere."""
    return tl.minimum(rough_exp2((b - tl.where(largest == float("-inf"), 0.0, largest)) * slope), 1.0)


@triton.jit
def slope_of(temperature):
    return tl.minimum(tl.math.div_rn(1.4426950408889634, temperature), 3.4028234663852886e38)


@triton.jit
def _mass(b, largest, slope):
    """Weight in units of 2^-40, int64."""
    return (weight_of(b, largest, slope) * 1099511627776.0).to(tl.int64)


@triton.jit
def _split_mass(b_weight):
    """The mass of a weight as two int32, upper bits and lower 20, each above _OFFSET: adding 2^23, rounded down, leaves
    an integer in the mantissa."""
    if IS_INTERPRETED:
        b_mass = (b_weight * 1099511627776.0).to(tl.int64)
        return (b_mass >> 20).to(tl.int32) + _OFFSET, (b_mass & 0xFFFFF).to(tl.int32) + _OFFSET
    else:
        b_high = fma_down(b_weight, 1048576.0, 8388608.0)
        b_rest = b_weight * 1048576.0 - (b_high - 8388608.0)  # exact
        b_low = fma_down(b_rest, 1048576.0, 8388608.0)
        return b_high.to(tl.int32, bitcast=True), b_low.to(tl.int32, bitcast=True)


@triton.jit
def _joined_mass(b_high, b_low):
    """Sum of masses in halves."""
    return tl.sum((b_high.to(tl.int64) << 20) + b_low.to(tl.int64), axis=0)


@triton.jit
def _least(min_p):
    """The smallest scaled logit that min_p keeps."""
    return tl.where(min_p > 0, log(tl.where(min_p > 0, min_p, 1.0)), float("-inf"))


@triton.jit
def _least_logit(least, largest, temperature):
    """The smallest logit whose scaled one is `least` or more: what min_p keeps, as one comparison."""
    low, high = tl.full([], -0x7F800001, tl.int64), monotonic(largest + 0.0).to(tl.int64) + 1  # from -inf on
    if least == float("-inf"):
        high = low
    while low < high:
        middle = low + ((high - low) >> 1)
        if _scaled(value_of(middle.to(tl.int32)), largest, temperature) >= least:
            high = middle
        else:
            low = middle + 1
    found = value_of(low.to(tl.int32))
    # nothing is kept, not even the largest
    return tl.where(low > monotonic(largest + 0.0).to(tl.int64), float("inf"), found)


@triton.jit
def _needed(top_p, total):
    """The mass that top_p asks for: one token at least."""
    return tl.maximum(tl.ceil(top_p.to(tl.float64) * total.to(tl.float64)).to(tl.int64), 1)


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit(do_not_specialize=["num_chunks"])
def _bracket_kernel(
    p_logits,
    p_maxima,  # [R, num_chunks] int64
    p_sums,  # [R, num_chunks, 2] fp32
    p_brackets,  # [R, 8] fp32: lo, hi, largest logit, least logit that min_p keeps, slope, bound of noise, needs mass
    p_firm,  # [R] int64: the best key (with noise) among the tokens of the sample that should be kept
    p_counts,  # [R, 2] int32: listed, rivals
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
    SAMPLE: tl.constexpr,
    SEGMENT: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Floating point will do: a bracket is a guess."""
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    step = tl.maximum(vocab_size // (SAMPLE // SEGMENT) // 4 * 4, SEGMENT)
    o = tl.arange(0, SAMPLE)
    o_id = (o // SEGMENT) * step + o % SEGMENT
    m = o_id < vocab_size
    wait()
    i_table = tl.load(p_rows + i_row)
    temperature = tl.load(p_temperature + i_table)
    tl.store(p_counts + i_row * 2, 0)
    tl.store(p_counts + i_row * 2 + 1, 0)
    tl.store(p_brackets + i_row * 8 + 4, 0.0)
    if temperature > 0:
        top_k, top_p, min_p = tl.load(p_top_k + i_table), tl.load(p_top_p + i_table), tl.load(p_min_p + i_table)
        has_k = (top_k > 0) & (top_k < vocab_size)
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        best = largest_of(p_maxima + i_row * num_chunks, num_chunks, CHUNKS)
        largest = logit_of(best)
        lo, hi = tl.full([], float("-inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
        least, least_logit = _least(min_p), tl.full([], float("-inf"), tl.float32)
        if min_p > 0:
            least_logit = _least_logit(least, largest, temperature)
        b = load_finite(p_logits + i_row * stride + o_id, m)
        b = (b - tl.where(largest == float("-inf"), 0.0, largest)) / temperature
        sure = tl.full([], float("-inf"), tl.float32)  # scaled logits from here on should be kept
        if has_k | (top_p < 1.0) | (min_p > 0):
            share = tl.minimum(SAMPLE / vocab_size.to(tl.float32), 1.0)  # of the vocabulary that is looked at
            low, high = tl.full([], -64.0, tl.float32), tl.full([], 0.0, tl.float32)
            hi = tl.full([], float("inf"), tl.float32)
            if has_k:
                expected = top_k.to(tl.float32) * share
                wanted = tl.where(share < 1.0, expected + 6.0 * tl.sqrt(expected) + 6.0, expected)
                few = tl.where(share < 1.0, expected - 6.0 * tl.sqrt(expected) - 6.0, expected)
                low_2, high_2 = low, high
                for _ in range(12):
                    middle, middle_2 = (low + high) * 0.5, (low_2 + high_2) * 0.5
                    above, above_2 = tl.reduce(
                        ((m & (b >= middle)).to(tl.float32), (m & (b >= middle_2)).to(tl.float32)), 0, _add_two
                    )
                    low, high = tl.where(above >= wanted, middle, low), tl.where(above >= wanted, high, middle)
                    low_2 = tl.where(above_2 > few, middle_2, low_2)
                    high_2 = tl.where(above_2 > few, high_2, middle_2)
                lo = low
                sure = tl.where((few > 0) & (top_p >= 1.0), high_2, 1.0)
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
                for _ in range(11):
                    middle = (low + high) * 0.5
                    is_less = tl.sum(tl.where(b < middle, b_weight, 0.0), axis=0) <= tail * share
                    low, high = tl.where(is_less, middle, low), tl.where(is_less, high, middle)
                b_square = tl.where(b < high, b_weight * b_weight, 0.0)
                spread = tl.where(share < 1.0, 4.5 * tl.sqrt(tl.sum(b_square, axis=0)) / share, 0.0) + 0.01 * tail
                # the ends of a tail that is lighter and of one that is heavier, at once
                low = tl.maximum(low - 6.0, -64.0)
                low_2, high_2 = low, tl.minimum(low + 12.0, tl.maximum(heaviest, -64.0))
                light, heavy = tl.maximum(tail - spread, 0.1 * tail) * share, (tail + spread) * share
                for _ in range(9):
                    middle, middle_2 = (low + high) * 0.5, (low_2 + high_2) * 0.5
                    below, below_2 = tl.reduce(
                        (tl.where(b < middle, b_weight, 0.0), tl.where(b < middle_2, b_weight, 0.0)), 0, _add_two
                    )
                    low, high = tl.where(below <= light, middle, low), tl.where(below <= light, high, middle)
                    low_2 = tl.where(below_2 <= heavy, middle_2, low_2)
                    high_2 = tl.where(below_2 <= heavy, high_2, middle_2)
                lo, end = low, high_2 + 0.025
                above = tl.sum((m & (b >= lo)).to(tl.float32), axis=0) / share
                below = tl.sum(tl.where(b < end, b_weight, 0.0), axis=0) / share
                sure = tl.where(below >= tail + 0.9 * spread, end, 1.0)
                if (above > 6144.0) & (below >= tail + 0.9 * spread):
                    hi = end * temperature + largest
            lo = tl.where(lo <= -63.9, float("-inf"), lo * temperature + largest)
            if (top_p >= 1.0) & ~has_k:  # min_p alone cuts where it says
                lo, hi = least_logit, tl.full([], float("-inf"), tl.float32)
                sure = least
        # noise has two logarithms, so a rough one finds the best of the sample; exact noise for it and the first token
        p_bits = bits_of_groups(seed, choice, position, _groups_of_sample(step, SAMPLE, SEGMENT))
        b_rough = tl.where(m & (b >= sure) & (b >= least), b + bound_of_bits(p_bits), float("-inf"))
        rough = tl.max(b_rough, axis=0)
        i_best = tl.min(tl.where(b_rough == rough, o_id, 0x7FFFFFFF), axis=0)
        first = id_of(best).to(tl.int32)
        i_best = tl.where(rough > float("-inf"), i_best, first)
        o_two = tl.where(tl.arange(0, 2) == 0, i_best, first)
        b_two = _scaled(load_finite(p_logits + i_row * stride + o_two, o_two >= 0), largest, temperature)
        b_two += gumbel_of_ids(seed, choice, position, o_two)
        firm = tl.max(key_of(b_two + 0.0, o_two), axis=0)
        p_record = p_brackets + i_row * 8
        tl.store(p_record, tl.maximum(lo, least_logit))
        tl.store(p_record + 1, hi)
        tl.store(p_record + 2, largest)
        tl.store(p_record + 3, least_logit)
        tl.store(p_record + 4, slope_of(temperature))
        # a token may be better where its random word is at most its weight times this: -log1p(-v) is at least v
        bound = tl.exp(-tl.maximum(logit_of(firm), -50.0)) * 8396996.0  # 2^23 and a thousandth
        tl.store(p_record + 5, bound)
        tl.store(p_record + 6, ((top_p < 1.0) & ~has_k).to(tl.float32))
        tl.store(p_firm + i_row, firm)


@triton.jit
def _groups_of_sample(step, SAMPLE: tl.constexpr, SEGMENT: tl.constexpr):
    """Groups of four ids of the sample, in order."""
    o = tl.arange(0, SAMPLE // 4)
    return (o // (SEGMENT // 4)) * (step // 4) + o % (SEGMENT // 4)


@triton.jit
def _append(p_count, p_list, b_bits, first, SIZE: tl.constexpr, TILE: tl.constexpr):
    """Adds ids to a list: bit 4 × tile + place of a lane's [TILE // 4] int32."""
    b_left = b_bits.to(tl.uint32, bitcast=True)
    if tl.max((b_bits != 0).to(tl.int32), axis=0) > 0:
        b_num = tl.zeros(b_bits.shape, tl.int32)
        for shift in tl.static_range(0, 32, 1):
            b_num += ((b_left >> shift) & 1).to(tl.int32)
        b_place = tl.atomic_add(p_count, tl.sum(b_num, axis=0)) + tl.cumsum(b_num, axis=0) - b_num
        o_lane = first + tl.arange(0, TILE // 4) * 4
        for i in range(tl.max(b_num, axis=0)):
            b_rest = b_left & (b_left - 1)
            b_lowest = b_left ^ b_rest
            b_bit = ((b_lowest & 0xAAAAAAAA) != 0).to(tl.int32)
            b_bit += ((b_lowest & 0xCCCCCCCC) != 0).to(tl.int32) * 2
            b_bit += ((b_lowest & 0xF0F0F0F0) != 0).to(tl.int32) * 4
            b_bit += ((b_lowest & 0xFF00FF00) != 0).to(tl.int32) * 8
            b_bit += ((b_lowest & 0xFFFF0000) != 0).to(tl.int32) * 16
            o_id = o_lane + (b_bit >> 2) * TILE + (b_bit & 3)
            tl.store(p_list + b_place + i, o_id, mask=(b_left != 0) & (b_place + i < SIZE))
            b_left = b_rest


@triton.jit
def _sift_kernel(
    p_logits,
    p_brackets,
    p_counts,
    p_listed,  # [R, LIST_SIZE] int32, ids in any order
    p_rivals,  # [R, MAX_RIVALS] int32, ids in any order: tokens above `lo` that may be better than `firm`
    p_found,  # [R, num_sifts, 2] int64: mass that min_p keeps, and of certain tokens
    p_rows,
    p_seeds,
    p_choices,
    p_positions,
    stride,
    vocab_size,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    MAX_RIVALS: tl.constexpr,
):
    """A lane has four neighbouring tokens of each tile, and a bit for each of them: at most 8 tiles."""
    launch_dependents()
    i_row, i_chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    p_record = p_brackets + i_row * 8
    first = i_chunk * (TILES * TILE)
    o_lane, o_four = tl.arange(0, TILE // 4), tl.arange(0, 4)
    o = first + o_lane[:, None] * 4 + o_four[None, :]
    wait()
    slope = tl.load(p_record + 4)
    if slope > 0:
        i_table = tl.load(p_rows + i_row)
        lo, hi, largest = tl.load(p_record), tl.load(p_record + 1), tl.load(p_record + 2)
        least, bound, needs_mass = tl.load(p_record + 3), tl.load(p_record + 5), tl.load(p_record + 6) > 0
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        # masses in two halves of 20 bits, whose sums over a lane fit an int32
        b_total, b_total_low = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
        b_certain, b_certain_low = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
        b_open, b_rival = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
        p_row = p_logits + i_row * stride
        for i in tl.static_range(TILES):
            o_id = o + i * TILE
            b = tl.load(p_row + o_id, mask=o_id < vocab_size, other=float("nan"))
            b = tl.minimum(b, 3.4028234663852886e38, propagate_nan=tl.PropagateNan.ALL)  # NaN passes no comparison
            b_weight = tl.where(b >= least, weight_of(b, largest, slope), 0.0)
            m_above = b >= lo
            m_open = m_above & (b < hi)
            b_bit = tl.full([TILE // 4, 4], 1 << (i * 4), tl.uint32).to(tl.int32, bitcast=True) << o_four[None, :]
            b_open += tl.sum(tl.where(m_open, b_bit, 0), axis=1)
            if needs_mass:
                b_high, b_low = _split_mass(b_weight)
                m_certain = b >= hi
                b_total += tl.sum(b_high - _OFFSET, axis=1)
                b_total_low += tl.sum(b_low - _OFFSET, axis=1)
                b_certain += tl.sum(tl.where(m_certain, b_high - _OFFSET, 0), axis=1)
                b_certain_low += tl.sum(tl.where(m_certain, b_low - _OFFSET, 0), axis=1)
            b_words = bits_of_groups(seed, choice, position, (first + i * TILE) // 4 + o_lane)
            b_words = tl.reshape(b_words, [TILE // 4, 4])
            b_limit = (b_weight * bound + 8388608.0).to(tl.int32, bitcast=True)
            m_rival = m_above & ((b_words >> 9).to(tl.int32) + _OFFSET <= b_limit)
            b_rival += tl.sum(tl.where(m_rival, b_bit, 0), axis=1)
        _append(p_counts + i_row * 2, p_listed + i_row * LIST_SIZE, b_open, first, LIST_SIZE, TILE)
        _append(p_counts + i_row * 2 + 1, p_rivals + i_row * MAX_RIVALS, b_rival, first, MAX_RIVALS, TILE)
        p_place = p_found + (i_row * tl.num_programs(1) + i_chunk) * 2
        tl.store(p_place, _joined_mass(b_total, b_total_low))
        tl.store(p_place + 1, _joined_mass(b_certain, b_certain_low))


@triton.jit
def _listed(p_logits, p_list, is_whole, num_listed, o, least):
    """Ids, logits and mask of the listed tokens that min_p keeps, at places `o`."""
    m = o < num_listed
    b_id = o
    if not is_whole:
        b_id = tl.load(p_list + o, mask=m, other=0)
    b_logit = load_finite(p_logits + b_id, m)
    return b_id, b_logit, m & (b_logit >= least)


@triton.jit
def _amount(b, largest, slope, by_mass):
    """What a token counts for: its mass, or 1."""
    return tl.where(by_mass, _mass(b, largest, slope), 1)


@triton.jit
def _reached(
    p_logits, p_list, is_whole, num_listed, largest, slope, least, floor, at_least, by_mass, BLOCK: tl.constexpr
):
    """Amount of the listed tokens with keys of `floor` or more and logits of `at_least` (monotonic) or more."""
    b_sum = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        b_id, b_logit, m = _listed(p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), least)
        m = m & (key_of(b_logit, b_id) >= floor) & (monotonic(b_logit) >= at_least)
        b_sum += tl.where(m, _amount(b_logit, largest, slope, by_mass), 0)
    return tl.sum(b_sum, axis=0)


@triton.jit
def _num_ties(p_logits, p_list, is_whole, num_listed, least, tied, up_to, BLOCK: tl.constexpr):
    """Listed tokens with the (monotonic) logit `tied` and ids up to `up_to`."""
    b_sum = tl.zeros([BLOCK], tl.int32)
    for start in range(0, num_listed, BLOCK):
        b_id, b_logit, m = _listed(p_logits, p_list, is_whole, num_listed, start + tl.arange(0, BLOCK), least)
        b_sum += (m & (monotonic(b_logit) == tied) & (b_id <= up_to)).to(tl.int32)
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
def _lacks(num_kept, top_k, lo, least):
    """Whether fewer than top_k are listed by fault of the bracket: min_p may drop whatever is below it."""
    return (num_kept < top_k) & (lo > float("-inf")) & (lo > least)


@triton.jit(do_not_specialize=["num_chunks", "num_sifts"])
def _finish_kernel(
    p_logits,
    p_maxima,
    p_brackets,
    p_firm,
    p_counts,
    p_listed,
    p_rivals,
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
    num_sifts,
    SMALL: tl.constexpr,
    BLOCK: tl.constexpr,
    NOISE_BLOCK: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    MAX_RIVALS: tl.constexpr,
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
        lo, least, slope = tl.load(p_brackets + i_row * 8), tl.load(p_brackets + i_row * 8 + 3), slope_of(temperature)
        has_k, has_p = (top_k > 0) & (top_k < vocab_size), top_p < 1.0
        p_row, p_list = p_logits + i_row * stride, p_listed + i_row * LIST_SIZE
        o_chunk = tl.arange(0, CHUNKS)
        m_chunk = o_chunk < num_sifts
        p_place = p_found + (i_row * num_sifts + o_chunk) * 2
        total = tl.sum(tl.load(p_place, mask=m_chunk, other=0), axis=0)
        certain = tl.sum(tl.load(p_place + 1, mask=m_chunk, other=0), axis=0)
        num_listed, num_rivals = tl.load(p_counts + i_row * 2), tl.load(p_counts + i_row * 2 + 1)
        floor = tl.full([], NOTHING, tl.int64)
        everything = tl.full([], -0x80000000, tl.int64)
        is_whole = num_listed > LIST_SIZE
        is_small = num_listed <= SMALL
        if is_small:
            b_id, b_logit, m = _listed(p_row, p_list, False, num_listed, tl.arange(0, SMALL), least)
            b_high = monotonic(b_logit)
            if has_k:
                num_kept = tl.sum(m.to(tl.int32), axis=0)
                is_whole = _lacks(num_kept, top_k, lo, least)
                if num_kept > top_k:
                    floor = _cut_block(b_high, b_id, m.to(tl.int64), m, top_k, vocab_size)
                    m = m & (key_of(b_logit, b_id) >= floor)
            if has_p:
                b_mass = tl.where(m, _mass(b_logit, largest, slope), 0)
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
                p_row, p_list, False, num_listed, largest, slope, least, floor, everything, has_p & ~has_k, BLOCK
            )
            if has_k:
                is_whole |= _lacks(listed, top_k, lo, least)
            elif has_p:
                needed = _needed(top_p, total)
                is_whole |= ((certain >= needed) | (certain + listed < needed)) & (total > 0)
        if is_whole:
            num_listed = vocab_size
            certain = tl.zeros([], tl.int64)
            floor = tl.full([], NOTHING, tl.int64)
        for phase in range(2):  # top_k, then top_p
            by_mass = phase == 1
            if (is_whole | ~is_small) & tl.where(by_mass, has_p, has_k):
                got = _reached(
                    p_row, p_list, is_whole, num_listed, largest, slope, least, floor, everything, by_mass, BLOCK
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
                        slope,
                        least,
                        floor,
                        needed,
                        vocab_size,
                        by_mass,
                        BLOCK,
                    )
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        # rivals are all that may be better than the firm token, as long as that is kept
        chosen = tl.load(p_firm + i_row)
        firm = load_finite(p_row + id_of(chosen), True)
        is_kept = (firm >= least) & (key_of(firm, id_of(chosen)) >= floor)
        is_whole = (not is_kept) | (num_rivals > MAX_RIVALS) | (is_whole & (lo > least))
        if is_whole:
            num_rivals = vocab_size
            chosen = tl.full([], NOTHING, tl.int64)
        p_rival = p_rivals + i_row * MAX_RIVALS
        for start in range(0, num_rivals, NOISE_BLOCK):
            b_id, b_logit, m = _listed(p_row, p_rival, is_whole, num_rivals, start + tl.arange(0, NOISE_BLOCK), least)
            m = m & (key_of(b_logit, b_id) >= floor)
            b_noisy = _scaled(b_logit, largest, temperature) + gumbel_of_ids(seed, choice, position, b_id)
            chosen = tl.maximum(chosen, tl.max(tl.where(m, key_of(b_noisy, b_id), NOTHING), axis=0))
        # nothing is left where min_p is above 1
        best = tl.where(chosen == NOTHING, best, chosen)
    tl.store(p_out + i_row, id_of(best))
