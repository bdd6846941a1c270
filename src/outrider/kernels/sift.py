"""The second reading of a row: masses are added, and the few tokens that matter are listed.

Open tokens lie inside the bracket, where the row will be cut. Rivals are tokens above its lower end that may be chosen:
all of them, or, where they are many, tokens whose random word says that they may be better than the firm token.

    | certain .............. | open ...... cut .... | dropped ......... |    tokens in order
                             hi                     lo
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own, and tuples of its blocks grow)

import triton
import triton.language as tl

from outrider.kernels.mass import OFFSET, joined_mass, split_mass, weight_of
from outrider.kernels.native import launch_dependents, lowest_bit, num_bits, rough_exp2, rough_log2, wait
from outrider.kernels.noise import bits_by_group
from outrider.kernels.order import key_of, load_finite

TILE = 128
TILES = 8
"""A lane of the one warp has four neighbouring tokens of each tile, and a bit for each of them."""


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def _store_keys(p_list, p_row, b_bits, b_place, num, first, TILE: tl.constexpr, SIZE: tl.constexpr):
    """Keys of the tokens of each lane's bits, from its place on; `num` is the largest number of bits."""
    b_left = b_bits
    o_lane = first + tl.arange(0, TILE // 4) * 4
    for i in range(0, num, 4):
        keys, masks = (), ()
        for _ in tl.static_range(4):  # loads that do not wait for each other
            b_bit = lowest_bit(b_left)
            o_id = o_lane + (b_bit >> 2) * TILE + (b_bit & 3)
            masks += (b_left != 0,)  # type: ignore[assignment]
            keys += (key_of(load_finite(p_row + o_id, b_left != 0), o_id),)  # type: ignore[assignment]
            b_left = b_left & (b_left - 1)
        for j in tl.static_range(4):
            tl.store(p_list + b_place + i + j, keys[j], mask=masks[j] & (b_place + i + j < SIZE))


@triton.jit
def _load(p_row, first, vocab_size, TILES: tl.constexpr, TILE: tl.constexpr):
    """TILES blocks [TILE // 4, 4] of logits; NaN behind the last."""
    tiles = ()
    for i in tl.static_range(TILES):
        o_id = first + i * TILE + tl.arange(0, TILE // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
        b = tl.load(p_row + o_id, mask=o_id < vocab_size, other=float("nan"))
        tiles += (b,)  # type: ignore[assignment]
    return tiles


@triton.jit
def _bits(i: tl.constexpr, o_four):
    """[1, 4] int32."""
    return (tl.full([4], 1 << (4 * i), tl.uint32).to(tl.int32, bitcast=True) << o_four)[None, :]


@triton.jit
def sift_kernel(
    p_logits,
    p_records,  # [R, RECORD] fp32
    p_counts,  # [R] int64: open tokens, and rivals × 2^32
    p_open,  # [R, OPEN_STRIDE] int64, of which LIST_SIZE keys in any order
    p_rivals,  # [R, LIST_SIZE] int64, keys in any order
    p_found,  # [R, num_sifts, 2] int64: mass that min_p keeps, and of certain tokens
    p_rows,
    p_seeds,
    p_choices,
    p_positions,
    stride,
    vocab_size,
    STEPS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    LIST_SIZE: tl.constexpr,
    OPEN_STRIDE: tl.constexpr,
    RECORD: tl.constexpr,
):
    """What the first reading read last is read first, for it may still be in the L2."""
    launch_dependents()
    i_row = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    i_chunk = tl.num_programs(0) - 1 - tl.program_id(0)
    p_record, p_row = p_records + i_row * RECORD, p_logits + i_row * stride
    o_lane, o_four = tl.arange(0, TILE // 4), tl.arange(0, 4)
    wait()
    slope = tl.load(p_record + 4)
    if slope > 0:
        lo, hi, largest, least = tl.load(p_record), tl.load(p_record + 1), tl.load(p_record + 2), tl.load(p_record + 3)
        needs_mass, is_noisy = tl.load(p_record + 6) > 0, tl.load(p_record + 7) > 0
        i_table = tl.load(p_rows + i_row)
        seed, choice, position = tl.load(p_seeds + i_table), tl.load(p_choices + i_table), tl.load(p_positions + i_row)
        # weight × bound of noise as one power of two, and a little more for the rounding of its exponent
        offset = tl.where(largest == float("-inf"), 0.0, largest) * slope
        offset = tl.abs(offset) * 4e-7 + rough_log2(tl.load(p_record + 5)) + 0.0001 - offset
        # nothing is certain: a number that no logit reaches, not even an infinite one
        sure = tl.where(hi == float("inf"), float("nan"), hi)
        b_total, b_certain = tl.zeros([TILE // 4], tl.int64), tl.zeros([TILE // 4], tl.int64)
        first = i_chunk * (STEPS * TILES * TILE)
        coming = _load(p_row, first, vocab_size, TILES, TILE)
        for _ in range(STEPS):
            tiles = coming
            if STEPS > 1:
                coming = _load(p_row, first + TILES * TILE, vocab_size, TILES, TILE)
            b_open, b_rival = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
            if hi > lo:
                for i in tl.static_range(TILES):  # NaN passes no comparison
                    b_open |= tl.sum(tl.where((tiles[i] >= lo) & ~(tiles[i] >= sure), _bits(i, o_four), 0), axis=1)
            if is_noisy:
                for i in tl.static_range(TILES):
                    b_words = bits_by_group(seed, choice, position, (first + i * TILE) // 4 + o_lane)
                    b_number = ((b_words >> 9).to(tl.int32) + OFFSET).to(tl.float32, bitcast=True)
                    m_rival = b_number <= rough_exp2(tiles[i] * slope + offset) + 8388608.0
                    b_rival |= tl.sum(tl.where(m_rival, _bits(i, o_four), 0), axis=1)
            elif hi == float("inf"):
                b_rival = b_open
            else:
                for i in tl.static_range(TILES):
                    b_rival |= tl.sum(tl.where(tiles[i] >= lo, _bits(i, o_four), 0), axis=1)
            b_num_open, b_num_rival = num_bits(b_open), num_bits(b_rival)
            b_num = b_num_open + (b_num_rival << 16)
            num = tl.sum(b_num, axis=0)
            # lane 0 takes the places; what it gets is not looked at before the masses are made
            b_start = tl.atomic_add(
                p_counts + i_row + tl.zeros([TILE // 4], tl.int32),
                (num & 0xFFFF).to(tl.int64) | ((num >> 16).to(tl.int64) << 32),
                mask=(o_lane == 0) & (num > 0),
                sem="relaxed",
            )
            if needs_mass:
                # in two halves of 20 bits, whose sums over a lane fit an int32
                b_sum, b_sum_low = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
                b_high, b_low = tl.zeros([TILE // 4], tl.int32), tl.zeros([TILE // 4], tl.int32)
                for i in tl.static_range(TILES):
                    b_weight = weight_of(tl.where(tiles[i] >= least, tiles[i], float("-inf")), largest, slope)
                    b_mass, b_mass_low = split_mass(b_weight)
                    b_sum += tl.sum(b_mass, axis=1)
                    b_sum_low += tl.sum(b_mass_low, axis=1)
                    b_high += tl.sum(tl.where(tiles[i] >= sure, b_mass, OFFSET), axis=1)
                    b_low += tl.sum(tl.where(tiles[i] >= sure, b_mass_low, OFFSET), axis=1)
                b_total += joined_mass(b_sum, b_sum_low, TILES * 4)
                b_certain += joined_mass(b_high, b_low, TILES * 4)
            if num > 0:
                start = tl.sum(tl.where(o_lane == 0, b_start, 0), axis=0)
                b_before = tl.cumsum(b_num, axis=0) - b_num
                p_list, most = p_open + i_row * OPEN_STRIDE, tl.max(b_num_open, axis=0)
                b_place = (start & 0xFFFFFFFF).to(tl.int32) + (b_before & 0xFFFF)
                _store_keys(p_list, p_row, b_open, b_place, most, first, TILE, LIST_SIZE)
                p_list, most = p_rivals + i_row * LIST_SIZE, tl.max(b_num_rival, axis=0)
                b_place = (start >> 32).to(tl.int32) + (b_before >> 16)
                _store_keys(p_list, p_row, b_rival, b_place, most, first, TILE, LIST_SIZE)
            first += TILES * TILE
        if needs_mass:
            total, certain = tl.reduce((b_total, b_certain), 0, _add_two)
            p_place = p_found + (i_row * tl.num_programs(0) + i_chunk) * 2
            tl.store(p_place, total)
            tl.store(p_place + 1, certain)
