"""The second reading of a row: adds masses and lists the few tokens that matter.

The third of the kernels in `topk_topp.py`. Undecided tokens lie inside the bracket, where the threshold will be found.
Candidates are tokens above its lower end whose random word says that they may be better than the incumbent.

    | certain .............. | undecided .. threshold .. | dropped ......... |    tokens in order
                           high                         low

A program has one warp, a part of a row and a segment of keys: undecided tokens from its front, candidates from its
back. In a row with few tokens above the bracket's lower end, these go to a shortlist first and are examined together,
one per lane; in other rows every token takes noise as it is read, four neighbours per lane.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own, and tuples of its blocks grow)

import triton
import triton.language as tl

from outrider.kernels.triton.intrinsics import (
    is_from,
    launch_dependents,
    lowest_bit,
    num_bits,
    rough_exp2,
    wait,
)
from outrider.kernels.triton.sampling.noise import bits_by_group, bits_of_ids
from outrider.kernels.triton.sampling.probability_mass import OFFSET, add_pairs, joined_mass, mass_of, split_mass
from outrider.kernels.triton.sampling.record import (
    MASS_CERTAIN,
    MASS_KEPT,
    MASSES,
    REC_ALL_NOISY,
    REC_HIGH,
    REC_IS_PLAIN,
    REC_LARGEST,
    REC_LEAST,
    REC_LOW,
    REC_NEEDS_MASS,
    REC_NOISE_BOUND,
    REC_SLOPE,
    bin_of,
    load_bins,
)
from outrider.kernels.triton.sampling.sort_keys import LARGEST, key_of, load_finite

TILE = 128
TILES = 4
"""A lane of the one warp has four neighbouring tokens of each tile, and a bit for each of them. With eight tiles it
needs more registers, and fewer warps fit."""

SHORTLIST = 1536
"""Tokens that a program's shortlist holds; it is examined and emptied when the next step might not fit."""

SHORTLIST_BLOCK = 64
"""Tokens of the shortlist that are examined together."""

_WORD_LIMIT = tl.constexpr(8388609.0)
"""2^23, which OFFSET adds to the upper 23 bits of a random word, and 1 for the bits below them."""


@triton.jit
def _load_tiles(p_row, first, end, vocab_size, TILES: tl.constexpr, TILE: tl.constexpr):
    """TILES blocks [TILE // 4, 4] of logits from `first` on; -inf after the row, and everywhere if first >= end."""
    tiles = ()
    for i in tl.static_range(TILES):
        o_id = first + i * TILE + tl.arange(0, TILE // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
        tiles += (tl.load(p_row + o_id, mask=(o_id < vocab_size) & (first < end), other=float("-inf")),)  # type: ignore[assignment]
    return tiles


@triton.jit
def _classify(
    tiles,
    noise,
    low,
    certain_from,
    anchor,
    slope,
    bound,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    WITH_MASS: tl.constexpr,
):
    """For each lane: bits of its tokens of `low` or more, of `certain_from` or more and of its candidates; its mass,
    and the mass of its certain tokens. With noise and mass all are computed; with noise alone, only the candidates."""
    LANES: tl.constexpr = TILE // 4
    seed, completion, position, i_group = noise
    # bits are sums of floats, which need fewer of the slow integer instructions and hold the bits of four tiles
    b_listed_bits, b_zero = tl.zeros([LANES], tl.float32), tl.zeros([LANES], tl.int32)
    b_certain_bits, b_candidate_bits = b_listed_bits, b_listed_bits
    # masses in two halves of 20 bits, whose sums over a lane fit into an int32
    b_mass, b_mass_low, b_certain, b_certain_low = b_zero, b_zero, b_zero, b_zero
    for i in tl.static_range(TILES):
        b_worth = (tl.full([4], 1 << (4 * i), tl.int32) << tl.arange(0, 4)).to(tl.float32)[None, :]
        if WITH_MASS or not WITH_NOISE:
            b_listed_bits += tl.sum(is_from(tiles[i], low) * b_worth, axis=1)
        if WITH_NOISE or WITH_MASS:
            b_weight = rough_exp2((tiles[i] - anchor) * slope)
        if WITH_NOISE:
            if WITH_MASS:
                b_certain_bits += tl.sum(is_from(tiles[i], certain_from) * b_worth, axis=1)
            b_words = bits_by_group(seed, completion, position, i_group + i * LANES + tl.arange(0, LANES))
            b_number = ((b_words >> 9).to(tl.int32) + OFFSET).to(tl.float32, bitcast=True)
            b_candidate_bits += tl.sum(is_from(b_weight * bound + (_WORD_LIMIT - b_number), 0.0) * b_worth, axis=1)
        if WITH_MASS:
            b_upper, b_lower = split_mass(b_weight)
            b_mass += tl.sum(b_upper, axis=1)
            b_mass_low += tl.sum(b_lower, axis=1)
            if WITH_NOISE:
                b_certain += tl.sum(tl.where(tiles[i] >= certain_from, b_upper, OFFSET), axis=1)
                b_certain_low += tl.sum(tl.where(tiles[i] >= certain_from, b_lower, OFFSET), axis=1)
    b_total, b_above = tl.zeros([LANES], tl.int64), tl.zeros([LANES], tl.int64)
    if WITH_MASS:
        b_total = joined_mass(b_mass, b_mass_low, TILES * 4)
        if WITH_NOISE:
            b_above = joined_mass(b_certain, b_certain_low, TILES * 4)
    return b_listed_bits.to(tl.int32), b_certain_bits.to(tl.int32), b_candidate_bits.to(tl.int32), b_total, b_above


@triton.jit
def _add_to_shortlist(p_shortlist, b_bits, b_place, first, most, TILE: tl.constexpr):
    """Store the tokens of each lane's bits, as places in the program's part. No lane has more than `most`."""
    b_left, b_at = b_bits, b_place
    o_lane = first + tl.arange(0, TILE // 4) * 4
    for _ in range(most):
        b_bit = lowest_bit(b_left)
        o = o_lane + (b_bit >> 2) * TILE + (b_bit & 3)
        tl.store(p_shortlist + b_at, o.to(tl.int16), mask=b_left != 0)
        b_left = b_left & (b_left - 1)
        b_at += 1


@triton.jit
def threshold_scan(
    p_logits,
    p_records,  # [R, RECORD] fp32
    p_bins,  # [R, NUM_BINS] int64: amounts of undecided tokens, masses or 1 each
    p_counts,  # [R, num_chunks] int64: undecided tokens, and candidates × 2^32
    p_lists,  # [R, num_chunks, SEGMENT] int64 keys in any order
    p_shortlists,  # [R, num_chunks, SHORTLIST] int16
    p_masses,  # [R, num_chunks, MASSES] int64
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
    SHORTLIST: tl.constexpr,
    SHORTLIST_BLOCK: tl.constexpr,
    NUM_BINS: tl.constexpr,
    RECORD: tl.constexpr,
):
    """Reads first what the first reading read last, because that may still be in the L2. The logits are ready
    when `sample_histogram` lets others start."""
    launch_dependents()
    i_row = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    i_chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    i_place = i_row * tl.num_programs(0) + i_chunk
    p_record, p_row = p_records + i_row * RECORD, p_logits + i_row * stride
    p_list, p_own_shortlist = p_lists + i_place * SEGMENT, p_shortlists + i_place * SHORTLIST
    LANES: tl.constexpr = TILE // 4
    o_lane = tl.arange(0, LANES)
    PART: tl.constexpr = STEPS * TILES * TILE
    begin = i_chunk * PART
    coming = _load_tiles(p_row, begin, begin + PART, vocab_size, TILES, TILE)
    i_table = tl.load(p_rows + i_row)
    seed, completion, position = (
        tl.load(p_seeds + i_table),
        tl.load(p_completions + i_table),
        tl.load(p_positions + i_row),
    )
    wait()
    slope = tl.load(p_record + REC_SLOPE)
    low, high = tl.load(p_record + REC_LOW), tl.load(p_record + REC_HIGH)
    largest, least = tl.load(p_record + REC_LARGEST), tl.load(p_record + REC_LEAST)
    bound, needs_mass = tl.load(p_record + REC_NOISE_BOUND), tl.load(p_record + REC_NEEDS_MASS) > 0
    is_noisy, is_plain = tl.load(p_record + REC_ALL_NOISY) > 0, tl.load(p_record + REC_IS_PLAIN) > 0
    bins = load_bins(p_record)
    if slope > 0:
        # where nothing is certain: NaN, which no logit reaches, not even an infinite one
        certain_from = tl.where(high == float("inf"), float("nan"), high)
        anchor = tl.where(largest == float("-inf"), 0.0, largest)
        b_total, b_certain = tl.zeros([LANES], tl.int64), tl.zeros([LANES], tl.int64)
        b_known = tl.zeros([SHORTLIST_BLOCK], tl.int64)
        num_undecided, num_candidates = tl.zeros([], tl.int32), tl.zeros([], tl.int32)
        num_shortlisted = tl.zeros([], tl.int32)
        for step in range(STEPS):
            first = step * (TILES * TILE)
            tiles = coming
            if STEPS > 1:
                coming = _load_tiles(p_row, begin + first + TILES * TILE, begin + PART, vocab_size, TILES, TILE)
            if not is_plain:
                cleaned = ()
                for i in tl.static_range(TILES):
                    b = tl.where(tiles[i] >= least, tiles[i], float("-inf"))
                    cleaned += (tl.minimum(b, LARGEST),)  # type: ignore[assignment]
                tiles = cleaned
            noise = (seed, completion, position, (begin + first) // 4)
            if is_noisy:
                if needs_mass | (high > low):
                    b_listed_bits, b_certain_bits, b_candidate_left, b_mass, b_above = _classify(
                        tiles, noise, low, certain_from, anchor, slope, bound, TILES, TILE, True, True
                    )
                    b_shortlisted = tl.where(high > low, b_listed_bits & ~b_certain_bits, 0)
                    b_total += b_mass
                    b_certain += b_above
                else:
                    b_shortlisted, b_certain_bits, b_candidate_left, b_mass, b_above = _classify(
                        tiles, noise, low, certain_from, anchor, slope, bound, TILES, TILE, True, False
                    )
                b_num = num_bits(b_candidate_left)
                most = tl.max(b_num, axis=0)
                if most > 0:
                    b_at = SEGMENT - 1 - num_candidates - tl.cumsum(b_num, axis=0) + b_num
                    for _ in range(most):
                        b_bit = lowest_bit(b_candidate_left)
                        o_id = begin + first + o_lane * 4 + (b_bit >> 2) * TILE + (b_bit & 3)
                        m = (b_candidate_left != 0) & (o_id < vocab_size)
                        b_key = key_of(load_finite(p_row + o_id, m), o_id)
                        tl.store(p_list + b_at, b_key, mask=(b_candidate_left != 0) & (b_at >= 0))
                        b_candidate_left = b_candidate_left & (b_candidate_left - 1)
                        b_at -= 1
                    num_candidates += tl.sum(b_num, axis=0)
            elif needs_mass:
                b_shortlisted, b_certain_bits, b_candidate_left, b_mass, b_above = _classify(
                    tiles, noise, low, certain_from, anchor, slope, bound, TILES, TILE, False, True
                )
                b_total += b_mass
            else:
                b_shortlisted, b_certain_bits, b_candidate_left, b_mass, b_above = _classify(
                    tiles, noise, low, certain_from, anchor, slope, bound, TILES, TILE, False, False
                )
            b_num = num_bits(b_shortlisted)
            most = tl.max(b_num, axis=0)
            if most > 0:
                b_end = tl.cumsum(b_num, axis=0)
                _add_to_shortlist(p_own_shortlist, b_shortlisted, num_shortlisted + b_end - b_num, first, most, TILE)
                num_shortlisted += tl.sum(b_num, axis=0)
            if (num_shortlisted > SHORTLIST - TILES * TILE) | (step == STEPS - 1):
                tl.debug_barrier()
                for start in range(0, num_shortlisted, SHORTLIST_BLOCK):
                    o = start + tl.arange(0, SHORTLIST_BLOCK)
                    m = o < num_shortlisted
                    o_id = begin + tl.load(p_own_shortlist + o, mask=m, other=0).to(tl.int32)
                    m = m & (o_id < vocab_size)
                    b = load_finite(p_row + o_id, m)
                    b_each = mass_of(b, largest, slope)
                    m_certain = b >= certain_from
                    m_undecided = m & ~m_certain & (high > low)
                    tl.atomic_add(
                        p_bins + i_row * NUM_BINS + bin_of(b, bins, NUM_BINS),
                        tl.where(needs_mass, b_each, 1),
                        mask=m_undecided,
                        sem="relaxed",
                    )
                    m_candidate = m & ~m
                    if not is_noisy:
                        b_known += tl.where(m & m_certain, b_each, 0)
                        b_words = bits_of_ids(seed, completion, position, o_id)
                        b_number = ((b_words >> 9).to(tl.int32) + OFFSET).to(tl.float32, bitcast=True)
                        b_weight = tl.minimum(rough_exp2((b - anchor) * slope), 1.0)
                        m_candidate = m & (b_weight * bound + (_WORD_LIMIT - b_number) >= 0.0)
                    b_two = m_undecided.to(tl.int32) + (m_candidate.to(tl.int32) << 16)
                    b_last = tl.cumsum(b_two, axis=0)
                    b_token = key_of(b, o_id)
                    b_to = num_undecided + (b_last & 0xFFFF) - 1
                    tl.store(p_list + b_to, b_token, mask=m_undecided & (b_to < SEGMENT))
                    b_to = SEGMENT - num_candidates - (b_last >> 16)
                    tl.store(p_list + b_to, b_token, mask=m_candidate & (b_to >= 0))
                    num = tl.sum(b_two, axis=0)
                    num_undecided += num & 0xFFFF
                    num_candidates += num >> 16
                tl.debug_barrier()
                num_shortlisted = tl.zeros([], tl.int32)
        tl.store(p_counts + i_place, num_undecided.to(tl.int64) | (num_candidates.to(tl.int64) << 32))
        if needs_mass:
            total, above = tl.reduce((b_total, b_certain), 0, add_pairs)
            tl.store(p_masses + i_place * MASSES + MASS_KEPT, total)
            tl.store(p_masses + i_place * MASSES + MASS_CERTAIN, above + tl.sum(b_known, axis=0))
