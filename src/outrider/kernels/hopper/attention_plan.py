"""Assigns attention to CTAs: query tiles from the host's counts, a list of work from the lengths on the device.

The KV of a tile is cut at multiples of PIECE. A tile is one item of work, or, where that would leave CTAs idle,
several: parts of whole pieces. None of this can change a bit: pieces are always merged one by one, in ascending order.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from dataclasses import dataclass
from functools import cache, lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.hopper.attention_records import (
    FIRST_PART,
    ITEM_ALL_END,
    ITEM_ALL_LOW,
    ITEM_BEGIN,
    ITEM_COUNT,
    ITEM_END,
    ITEM_FIRST_PIECE,
    ITEM_LOW,
    ITEM_MODE,
    ITEM_ROW,
    ITEM_TOKEN,
    ITEM_WIDTH,
    LATER_PART,
    SPLIT_FIRST_PIECE,
    SPLIT_MERGED,
    SPLIT_WIDTH,
    TILE_COUNT,
    TILE_ROW,
    TILE_TOKEN,
    TILE_WIDTH,
    WHOLE,
)
from outrider.kernels.interface.cache import DeviceCounts

PIECE = 256
"""KV positions that are summed alone: part of the arithmetic."""

LANES = 64
"""KV positions of one product: part of the arithmetic."""

ROWS = 64
"""Query rows of one warpgroup: heads of one kv head, of as many tokens as fit."""

_MAX_PARTIAL_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Tiles:
    """Query tiles of one height."""

    row_blocks: int  # warpgroups that share the KV of a tile
    tokens_per_tile: int
    table: Tensor  # [num_tiles, TILE_WIDTH] int32; a tile of 0 tokens does not exist
    tokens: Tensor  # [n] int32, all tokens of these tiles
    num_expected: int  # tiles that a step has about; a table made on the device has places for the most
    token_bound: int  # all tokens are before this place in the flat batch
    is_on_device: bool = False  # made on the device: `tokens` may name tokens of tiles of another height


@dataclass(frozen=True, slots=True)
class Work:
    """Items of all tiles of one height; `num_items` says how many there are, on the device."""

    tiles: Tiles
    items: Tensor  # [bound, ITEM_WIDTH] int32
    num_items: Tensor  # [1] int32
    splits: Tensor  # [num_tokens, SPLIT_WIDTH] int32
    max_pieces: int
    may_split: bool


_SHORT = 32
"""Batches whose rows have equal counts of at most this many tokens are treated as decoding."""


def make_tiles(row_counts: tuple[int, ...], heads: int, max_row_blocks: int, device: torch.device) -> tuple[Tiles, ...]:
    """Tiles of `heads` query heads (a power of two) by tokens; tall ones for rows with many tokens.

    The tiles of a decoding batch are never freed: a captured graph reads them.
    """
    is_decoding = row_counts[0] <= _SHORT and row_counts == (row_counts[0],) * len(row_counts)
    make = _kept_tiles if is_decoding else _recent_tiles
    return make(row_counts, heads, max_row_blocks, device)


def _make_tiles(
    row_counts: tuple[int, ...], heads: int, max_row_blocks: int, device: torch.device
) -> tuple[Tiles, ...]:
    per_block = ROWS // heads
    tables: dict[int, list[tuple[int, int, int, int]]] = {1: [], 2: []}
    start = 0
    for row, count in enumerate(row_counts):
        blocks = max_row_blocks if count > per_block else 1
        step = per_block * blocks
        tables[blocks] += [(row, start + o, min(step, count - o), 0) for o in range(0, count, step)]
        start += count
    return tuple(
        Tiles(
            blocks,
            per_block * blocks,
            _to_device(table, device),
            _to_device([t for _, first, count, _ in table for t in range(first, first + count)], device),
            len(table),
            start,
        )
        for blocks, table in tables.items()
        if table
    )


def make_tiles_on_device(rows: DeviceCounts, *, num_tokens: int, heads: int, max_row_blocks: int) -> tuple[Tiles, ...]:
    """`make_tiles` of counts that only the device knows, of a batch of `num_tokens`.

    Low tiles are for decode rows at the front of the batch, at most as many tokens as rows of `decode_width` have; all
    other rows get tall tiles, wherever they are.
    """
    num_rows, device = rows.counts.shape[0], rows.counts.device
    per_block = ROWS // heads
    per_tile = per_block * max_row_blocks
    num_low_tokens = min(num_rows * rows.decode_width, num_tokens)
    most_tall = triton.cdiv(num_tokens, per_tile) + num_rows
    low = torch.empty(num_rows, TILE_WIDTH.value, dtype=torch.int32, device=device)
    tall = torch.empty(most_tall, TILE_WIDTH.value, dtype=torch.int32, device=device)
    _tiles_kernel[(1,)](
        rows.counts,
        rows.starts,
        low,
        tall,
        num_rows,
        most_tall,
        min(rows.decode_width, per_block),
        num_low_tokens,
        PER_TILE=per_tile,
        ROWS=_block(num_rows),
        BLOCK=_block(most_tall),
        num_warps=4,
    )
    tokens = torch.arange(num_tokens, dtype=torch.int32, device=device)
    return (
        Tiles(1, per_block, low, tokens[:num_low_tokens], num_rows, num_low_tokens, is_on_device=True),
        Tiles(
            max_row_blocks,
            per_tile,
            tall,
            tokens,
            triton.cdiv(num_tokens, per_tile),
            num_tokens,
            is_on_device=True,
        ),
    )


@triton.jit(do_not_specialize=["num_rows", "most_tall", "low_width", "num_low_tokens"])
def _tiles_kernel(
    p_counts,  # [num_rows] int64
    p_starts,  # [num_rows] int64
    p_low,  # [num_rows, TILE_WIDTH] int32
    p_tall,  # [most_tall, TILE_WIDTH] int32
    num_rows,
    most_tall,
    low_width,  # tokens of a low tile at most
    num_low_tokens,  # tokens from here on are in tall tiles
    PER_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_row = tl.arange(0, ROWS)
    m_row = o_row < num_rows
    b_count = tl.load(p_counts + o_row, mask=m_row, other=0).to(tl.int32)
    b_start = tl.load(p_starts + o_row, mask=m_row, other=0).to(tl.int32)
    m_low = (b_count > 0) & (b_count <= low_width) & (b_start + b_count <= num_low_tokens)
    b_low = m_low.to(tl.int32)
    b_place = tl.cumsum(b_low, axis=0) - b_low
    _store_tile(p_low, b_place, o_row, b_start, b_count, m_low)
    _store_tile(p_low, o_row, o_row, b_start, tl.zeros([ROWS], tl.int32), m_row & (o_row >= tl.sum(b_low, axis=0)))
    b_tiles = tl.where(m_low, 0, (b_count + PER_TILE - 1) // PER_TILE)
    b_place = tl.cumsum(b_tiles, axis=0) - b_tiles
    for i in range(tl.max(b_tiles, axis=0)):
        b_left = tl.minimum(b_count - i * PER_TILE, PER_TILE)
        _store_tile(p_tall, b_place + i, o_row, b_start + i * PER_TILE, b_left, i < b_tiles)
    o_tile = tl.arange(0, BLOCK)
    b_nothing = tl.zeros([BLOCK], tl.int32)
    m_none = (o_tile >= tl.sum(b_tiles, axis=0)) & (o_tile < most_tall)
    _store_tile(p_tall, o_tile, b_nothing, b_nothing, b_nothing, m_none)


@triton.jit
def _store_tile(p_tiles, o_tile, b_row, b_token, b_count, m):
    p_tile = p_tiles + o_tile * TILE_WIDTH
    tl.store(p_tile + TILE_ROW, b_row, mask=m)
    tl.store(p_tile + TILE_TOKEN, b_token, mask=m)
    tl.store(p_tile + TILE_COUNT, b_count, mask=m)


def _block(count: int) -> int:
    """Places of a program that handles `count`, the same for all usual numbers, so that it is compiled once."""
    return max(512, triton.next_power_of_2(count))


_recent_tiles = lru_cache(maxsize=64)(_make_tiles)
_kept_tiles = cache(_make_tiles)


def _to_device(values: list, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32).pin_memory().to(device, non_blocking=True)


def make_work(
    tiles: Tiles,
    kv_lengths: Tensor,
    *,
    kv_length_bound: int,
    kv_start: int,
    window: int | None,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    num_ctas: int,
) -> Work:
    """Items for `num_ctas` CTAs; kv_lengths [num_tokens] int64 stay on the device."""
    device = kv_lengths.device
    num_tiles = tiles.table.shape[0]
    max_pieces = max(1, triton.cdiv(kv_length_bound, PIECE))
    partial_bytes = tiles.token_bound * num_heads * max_pieces * (head_dim + 2) * 4
    has_enough = tiles.num_expected * num_kv_heads >= 2 * num_ctas and tiles.row_blocks > 1
    may_split = max_pieces > 1 and not has_enough and partial_bytes <= _MAX_PARTIAL_BYTES
    bound = num_tiles * (max_pieces if may_split else 1)
    # tokens of another height's tiles keep 0: they have nothing to merge
    empty_splits = torch.zeros if tiles.is_on_device and may_split else torch.empty
    work = Work(
        tiles=tiles,
        items=torch.empty(bound, ITEM_WIDTH.value, dtype=torch.int32, device=device),
        num_items=torch.empty(1, dtype=torch.int32, device=device),
        splits=empty_splits(kv_lengths.shape[0], SPLIT_WIDTH.value, dtype=torch.int32, device=device),
        max_pieces=max_pieces,
        may_split=may_split,
    )
    block = _block(num_tiles) if tiles.is_on_device else max(128, triton.next_power_of_2(num_tiles))
    _plan_kernel[(1,)](
        tiles.table,
        kv_lengths,
        work.items,
        work.num_items,
        work.splits,
        num_tiles,
        kv_start,
        window or 0,
        max(1, num_ctas // num_kv_heads),
        MAY_SPLIT=may_split,
        HAS_WINDOW=window is not None,
        TOKENS=tiles.tokens_per_tile,
        PIECE=PIECE,
        LANES=LANES,
        BLOCK=block,
        num_warps=4 if block <= 512 else 8,
    )
    return work


@triton.jit(do_not_specialize=["num_tiles", "kv_start", "window", "num_lanes"])
def _plan_kernel(
    p_tiles,  # [num_tiles, TILE_WIDTH] int32
    p_lengths,  # [num_tokens] int64
    p_items,  # [bound, ITEM_WIDTH] int32
    p_num_items,  # [1] int32
    p_splits,  # [num_tokens, SPLIT_WIDTH] int32
    num_tiles,
    kv_start,
    window,
    num_lanes,  # CTAs for one kv head
    MAY_SPLIT: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    TOKENS: tl.constexpr,
    PIECE: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_tile = tl.arange(0, BLOCK)
    m_tile = o_tile < num_tiles
    i_row = tl.load(p_tiles + o_tile * TILE_WIDTH + TILE_ROW, mask=m_tile, other=0)
    i_token = tl.load(p_tiles + o_tile * TILE_WIDTH + TILE_TOKEN, mask=m_tile, other=0)
    count = tl.load(p_tiles + o_tile * TILE_WIDTH + TILE_COUNT, mask=m_tile, other=0)
    m_tile = m_tile & (count > 0)

    # padding tokens have length 0 and see nothing
    end = tl.zeros([BLOCK], tl.int32)
    low = tl.full([BLOCK], 2147483647, tl.int32)
    all_end = tl.full([BLOCK], 2147483647, tl.int32)
    all_low = tl.zeros([BLOCK], tl.int32)
    for i in range(TOKENS):
        m_token = m_tile & (i < count)
        length = tl.load(p_lengths + i_token + i, mask=m_token, other=0).to(tl.int32)
        first = tl.zeros([BLOCK], tl.int32) + kv_start
        if HAS_WINDOW:
            first = tl.maximum(length - window, kv_start)
        end = tl.maximum(end, length)
        low = tl.where(m_token & (length > 0), tl.minimum(low, first), low)
        all_end = tl.where(m_token, tl.minimum(all_end, length), all_end)
        all_low = tl.where(m_token, tl.maximum(all_low, first), all_low)
    low = tl.minimum(low, end)
    begin = low // LANES * LANES
    i_piece = begin // PIECE
    num_pieces = tl.where(end > begin, (end + PIECE - 1) // PIECE - i_piece, 0)

    # parts of one wave of CTAs if they make one, else of half a wave
    size = num_pieces + 1
    if MAY_SPLIT:
        total = tl.sum(num_pieces, axis=0)
        wave = tl.maximum((total + num_lanes - 1) // num_lanes, 1)
        if tl.sum((num_pieces + wave - 1) // wave, axis=0) > num_lanes:
            wave = tl.maximum(wave // 2, 1)
        size = tl.zeros([BLOCK], tl.int32) + wave
    is_split = num_pieces > size
    num_parts = tl.where(is_split, (num_pieces + size - 1) // size, tl.where(m_tile, 1, 0))
    place = tl.cumsum(num_parts, axis=0) - num_parts
    tl.store(p_num_items, tl.sum(num_parts, axis=0))
    for i in range(tl.max(num_parts, axis=0)):
        m_part = i < num_parts
        p_item = p_items + (place + i) * ITEM_WIDTH
        tl.store(p_item + ITEM_ROW, i_row, mask=m_part)
        tl.store(p_item + ITEM_TOKEN, i_token, mask=m_part)
        tl.store(p_item + ITEM_COUNT, count, mask=m_part)
        tl.store(p_item + ITEM_BEGIN, tl.where(i > 0, (i_piece + i * size) * PIECE, begin), mask=m_part)
        part_end = tl.where(is_split, tl.minimum((i_piece + (i + 1) * size) * PIECE, end), end)
        tl.store(p_item + ITEM_END, part_end, mask=m_part)
        tl.store(p_item + ITEM_MODE, tl.where(is_split, tl.where(i > 0, LATER_PART, FIRST_PART), WHOLE), mask=m_part)
        tl.store(p_item + ITEM_LOW, low, mask=m_part)
        tl.store(p_item + ITEM_FIRST_PIECE, i_piece, mask=m_part)
        tl.store(p_item + ITEM_ALL_END, all_end, mask=m_part)
        tl.store(p_item + ITEM_ALL_LOW, all_low, mask=m_part)
    for i in range(TOKENS):
        m_token = m_tile & (i < count)
        p_split = p_splits + (i_token + i) * SPLIT_WIDTH
        tl.store(p_split + SPLIT_MERGED, tl.where(is_split, size, 0), mask=m_token)
        tl.store(p_split + SPLIT_FIRST_PIECE, i_piece, mask=m_token)
