"""The second reading of a row: masses are added, and the few tokens that matter are listed.

Open tokens lie inside the bracket, where the row will be cut. Rivals are tokens above its lower end whose random word
says that they may be better than the firm token.

    | certain .............. | open ...... cut .... | dropped ......... |    tokens in order
                             hi                     lo

A program has one warp, a part of a row and a segment of keys: open ones from its front, rivals from its back. Of a row
with few tokens above the bracket's lower end these hopeful ones are noted first and then looked at, a lane to each; the
others take noise as they come, a lane to four neighbours.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own, and tuples of its blocks grow)

import triton
import triton.language as tl

from outrider.kernels.hopper.intrinsics import (
    is_from,
    launch_dependents,
    lowest_bit,
    num_bits,
    product,
    rough_exp2,
    wait,
)
from outrider.kernels.hopper.sampling.noise import bits_by_group, bits_of_ids
from outrider.kernels.hopper.sampling.probability_mass import OFFSET, joined_mass, mass_of, split_mass
from outrider.kernels.hopper.sampling.sort_keys import key_of, load_finite

TILE = 128
TILES = 4
"""A lane of the one warp has four neighbouring tokens of each tile, and a bit for each of them. With eight tiles it has
so many registers that fewer warps fit."""

HOPEFUL = 1536
"""Tokens that a program may have noted; they are looked at when those of a step might find no room."""

LOOK = 64
"""How many of these are looked at together."""


@triton.jit
def bin_of(b, bins, NUM_BINS: tl.constexpr):
    """The bin of an open token: the same in every kernel, for no fma can be made of it.

    bins: the upper end, a logit below which bins are finer, and bins in a unit of logits above it and below.
    """
    top, middle, scale, fine_scale = bins
    num_above = tl.where(middle == float("-inf"), NUM_BINS * 1.0, NUM_BINS * 0.5)
    b_above = tl.minimum(tl.maximum(product(top - b, scale), 0.0), num_above - 1.0).to(tl.int32)
    b_below = tl.minimum(product(middle - b, fine_scale), NUM_BINS * 0.5 - 1.0).to(tl.int32) + NUM_BINS // 2
    return tl.where(b >= middle, b_above, tl.maximum(b_below, NUM_BINS // 2))


@triton.jit
def load_bins(p_record):
    """What `bin_of` needs of a row's record."""
    return tl.load(p_record + 9), tl.load(p_record + 10), tl.load(p_record + 11), tl.load(p_record + 12)


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def _load(p_row, first, end, vocab_size, TILES: tl.constexpr, TILE: tl.constexpr):
    """TILES blocks [TILE // 4, 4] of logits; -inf behind the last, and all of them from `end` on."""
    tiles = ()
    for i in tl.static_range(TILES):
        o_id = first + i * TILE + tl.arange(0, TILE // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
        tiles += (tl.load(p_row + o_id, mask=(o_id < vocab_size) & (first < end), other=float("-inf")),)  # type: ignore[assignment]
    return tiles


@triton.jit
def _look(
    tiles,
    noise,
    lo,
    sure,
    anchor,
    slope,
    bound,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    WITH_MASS: tl.constexpr,
):
    """Of each lane: bits of its tokens of `lo` or more, of `sure` or more and of its rivals; its mass, and the mass of
    `sure` or more. Only noise and mass together give all; noise alone gives no more than rivals."""
    LANES: tl.constexpr = TILE // 4
    seed, completion, position, i_group = noise
    # bits are sums of floats, which take fewer of the slow integer instructions and have room for four tiles
    b_from, b_nought = tl.zeros([LANES], tl.float32), tl.zeros([LANES], tl.int32)
    b_sure, b_rival = b_from, b_from
    # masses in two halves of 20 bits, whose sums over a lane fit an int32
    b_mass, b_mass_low, b_certain, b_certain_low = b_nought, b_nought, b_nought, b_nought
    for i in tl.static_range(TILES):
        b_worth = (tl.full([4], 1 << (4 * i), tl.int32) << tl.arange(0, 4)).to(tl.float32)[None, :]
        if WITH_MASS or not WITH_NOISE:
            b_from += tl.sum(is_from(tiles[i], lo) * b_worth, axis=1)
        if WITH_NOISE or WITH_MASS:
            b_weight = rough_exp2((tiles[i] - anchor) * slope)
        if WITH_NOISE:
            if WITH_MASS:
                b_sure += tl.sum(is_from(tiles[i], sure) * b_worth, axis=1)
            b_words = bits_by_group(seed, completion, position, i_group + i * LANES + tl.arange(0, LANES))
            b_number = ((b_words >> 9).to(tl.int32) + OFFSET).to(tl.float32, bitcast=True)
            b_rival += tl.sum(is_from(b_weight * bound + (8388609.0 - b_number), 0.0) * b_worth, axis=1)
        if WITH_MASS:
            b_upper, b_lower = split_mass(b_weight)
            b_mass += tl.sum(b_upper, axis=1)
            b_mass_low += tl.sum(b_lower, axis=1)
            if WITH_NOISE:
                b_certain += tl.sum(tl.where(tiles[i] >= sure, b_upper, OFFSET), axis=1)
                b_certain_low += tl.sum(tl.where(tiles[i] >= sure, b_lower, OFFSET), axis=1)
    b_total, b_above = tl.zeros([LANES], tl.int64), tl.zeros([LANES], tl.int64)
    if WITH_MASS:
        b_total = joined_mass(b_mass, b_mass_low, TILES * 4)
        if WITH_NOISE:
            b_above = joined_mass(b_certain, b_certain_low, TILES * 4)
    return b_from.to(tl.int32), b_sure.to(tl.int32), b_rival.to(tl.int32), b_total, b_above


@triton.jit
def _note(p_hopeful, b_bits, b_place, first, most, TILE: tl.constexpr):
    """Places in the program's part of the tokens of each lane's bits, of which no lane has more than `most`."""
    b_left, b_at = b_bits, b_place
    o_lane = first + tl.arange(0, TILE // 4) * 4
    for _ in range(most):
        b_bit = lowest_bit(b_left)
        o = o_lane + (b_bit >> 2) * TILE + (b_bit & 3)
        tl.store(p_hopeful + b_at, o.to(tl.int16), mask=b_left != 0)
        b_left = b_left & (b_left - 1)
        b_at += 1


@triton.jit
def sift_kernel(
    p_logits,
    p_records,  # [R, RECORD] fp32
    p_bins,  # [R, NUM_BINS] int64: amounts of open tokens, masses or 1 each
    p_counts,  # [R, num_chunks] int64: open tokens, and rivals × 2^32
    p_lists,  # [R, num_chunks, SEGMENT] int64 keys in any order
    p_hopeful,  # [R, num_chunks, HOPEFUL] int16
    p_found,  # [R, num_chunks, 2] int64: mass that min_p keeps, and of certain tokens
    p_rows,
    p_seeds,
    p_completions,
    p_positions,
    stride,
    vocab_size,
    STEPS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    SEGMENT: tl.constexpr,
    HOPEFUL: tl.constexpr,
    LOOK: tl.constexpr,
    NUM_BINS: tl.constexpr,
    RECORD: tl.constexpr,
):
    """What the first reading read last is read first, for it may still be in the L2. The logits are there already when
    the first of the kernels of a row lets others begin."""
    launch_dependents()
    i_row = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    i_chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    i_place = i_row * tl.num_programs(0) + i_chunk
    p_record, p_row = p_records + i_row * RECORD, p_logits + i_row * stride
    p_list, p_noted = p_lists + i_place * SEGMENT, p_hopeful + i_place * HOPEFUL
    LANES: tl.constexpr = TILE // 4
    o_lane = tl.arange(0, LANES)
    PART: tl.constexpr = STEPS * TILES * TILE
    begin = i_chunk * PART
    coming = _load(p_row, begin, begin + PART, vocab_size, TILES, TILE)
    i_table = tl.load(p_rows + i_row)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    wait()
    slope = tl.load(p_record + 4)
    lo, hi, largest, least = tl.load(p_record), tl.load(p_record + 1), tl.load(p_record + 2), tl.load(p_record + 3)
    bound, needs_mass = tl.load(p_record + 5), tl.load(p_record + 6) > 0
    is_noisy, is_plain = tl.load(p_record + 7) > 0, tl.load(p_record + 8) > 0
    bins = load_bins(p_record)
    if slope > 0:
        # nothing is certain: a number that no logit reaches, not even an infinite one
        sure = tl.where(hi == float("inf"), float("nan"), hi)
        anchor = tl.where(largest == float("-inf"), 0.0, largest)
        b_total, b_certain = tl.zeros([LANES], tl.int64), tl.zeros([LANES], tl.int64)
        b_known = tl.zeros([LOOK], tl.int64)
        num_open, num_rivals, num_noted = tl.zeros([], tl.int32), tl.zeros([], tl.int32), tl.zeros([], tl.int32)
        for step in range(STEPS):
            first = step * (TILES * TILE)
            tiles = coming
            if STEPS > 1:
                coming = _load(p_row, begin + first + TILES * TILE, begin + PART, vocab_size, TILES, TILE)
            if not is_plain:
                cleaned = ()
                for i in tl.static_range(TILES):
                    b = tl.where(tiles[i] >= least, tiles[i], float("-inf"))
                    cleaned += (tl.minimum(b, 3.4028234663852886e38),)  # type: ignore[assignment]
                tiles = cleaned
            noise = (seed, completion, position, (begin + first) // 4)
            if is_noisy:
                if needs_mass | (hi > lo):
                    b_from, b_sure, b_left, b_mass, b_above = _look(
                        tiles, noise, lo, sure, anchor, slope, bound, TILES, TILE, True, True
                    )
                    b_noted = tl.where(hi > lo, b_from & ~b_sure, 0)
                    b_total += b_mass
                    b_certain += b_above
                else:
                    b_noted, b_sure, b_left, b_mass, b_above = _look(
                        tiles, noise, lo, sure, anchor, slope, bound, TILES, TILE, True, False
                    )
                b_num = num_bits(b_left)
                most = tl.max(b_num, axis=0)
                if most > 0:
                    b_at = SEGMENT - 1 - num_rivals - tl.cumsum(b_num, axis=0) + b_num
                    for _ in range(most):
                        b_bit = lowest_bit(b_left)
                        o_id = begin + first + o_lane * 4 + (b_bit >> 2) * TILE + (b_bit & 3)
                        m = (b_left != 0) & (o_id < vocab_size)
                        b_key = key_of(load_finite(p_row + o_id, m), o_id)
                        tl.store(p_list + b_at, b_key, mask=(b_left != 0) & (b_at >= 0))
                        b_left = b_left & (b_left - 1)
                        b_at -= 1
                    num_rivals += tl.sum(b_num, axis=0)
            elif needs_mass:
                b_noted, b_sure, b_left, b_mass, b_above = _look(
                    tiles, noise, lo, sure, anchor, slope, bound, TILES, TILE, False, True
                )
                b_total += b_mass
            else:
                b_noted, b_sure, b_left, b_mass, b_above = _look(
                    tiles, noise, lo, sure, anchor, slope, bound, TILES, TILE, False, False
                )
            b_num = num_bits(b_noted)
            most = tl.max(b_num, axis=0)
            if most > 0:
                b_end = tl.cumsum(b_num, axis=0)
                _note(p_noted, b_noted, num_noted + b_end - b_num, first, most, TILE)
                num_noted += tl.sum(b_num, axis=0)
            if (num_noted > HOPEFUL - TILES * TILE) | (step == STEPS - 1):
                tl.debug_barrier()
                for start in range(0, num_noted, LOOK):
                    o = start + tl.arange(0, LOOK)
                    m = o < num_noted
                    o_id = begin + tl.load(p_noted + o, mask=m, other=0).to(tl.int32)
                    m = m & (o_id < vocab_size)
                    b = load_finite(p_row + o_id, m)
                    b_each = mass_of(b, largest, slope)
                    m_sure = b >= sure
                    m_open = m & ~m_sure & (hi > lo)
                    tl.atomic_add(
                        p_bins + i_row * NUM_BINS + bin_of(b, bins, NUM_BINS),
                        tl.where(needs_mass, b_each, 1),
                        mask=m_open,
                        sem="relaxed",
                    )
                    m_rival = m & ~m
                    if not is_noisy:
                        b_known += tl.where(m & m_sure, b_each, 0)
                        b_words = bits_of_ids(seed, completion, position, o_id)
                        b_number = ((b_words >> 9).to(tl.int32) + OFFSET).to(tl.float32, bitcast=True)
                        b_weight = tl.minimum(rough_exp2((b - anchor) * slope), 1.0)
                        m_rival = m & (b_weight * bound + (8388609.0 - b_number) >= 0.0)
                    b_two = m_open.to(tl.int32) + (m_rival.to(tl.int32) << 16)
                    b_last = tl.cumsum(b_two, axis=0)
                    b_token = key_of(b, o_id)
                    b_to = num_open + (b_last & 0xFFFF) - 1
                    tl.store(p_list + b_to, b_token, mask=m_open & (b_to < SEGMENT))
                    b_to = SEGMENT - num_rivals - (b_last >> 16)
                    tl.store(p_list + b_to, b_token, mask=m_rival & (b_to >= 0))
                    num = tl.sum(b_two, axis=0)
                    num_open += num & 0xFFFF
                    num_rivals += num >> 16
                tl.debug_barrier()
                num_noted = tl.zeros([], tl.int32)
        tl.store(p_counts + i_place, num_open.to(tl.int64) | (num_rivals.to(tl.int64) << 32))
        if needs_mass:
            total, above = tl.reduce((b_total, b_certain), 0, _add_two)
            tl.store(p_found + i_place * 2, total)
            tl.store(p_found + i_place * 2 + 1, above + tl.sum(b_known, axis=0))
