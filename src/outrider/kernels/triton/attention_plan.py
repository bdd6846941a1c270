"""Assigns attention to CTAs: query tiles from the counts of rows, a list of work from the lengths on the device.

The KV of a tile is cut at multiples of PIECE. A tile is one item of work, or, where that would leave CTAs idle,
several: parts of whole pieces. Items are in descending order of their KV, which CTAs take in turns, so that all get
about as much. None of this can change a bit: pieces are always merged one by one, in ascending order.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from dataclasses import dataclass
from functools import cache, lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.triton.attention_records import (
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

PIECE = 256
"""KV positions that are summed alone: part of the arithmetic."""

LANES = 64
"""KV positions of one product: part of the arithmetic."""

ROWS = 64
"""Query rows of a block: heads of one kv head, of as many tokens as fit."""

_MAX_PARTIAL_BYTES = 1 << 28


_COST_CLASSES = 16
"""Items are sorted by their KV in this many classes; within one they keep their order."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Query tiles of a step, all of one height."""

    row_blocks: int  # blocks that share the KV of a tile; those without a token of it do nothing
    tokens_per_tile: int
    table: Tensor  # [num_tiles, TILE_WIDTH] int32; a tile of 0 tokens does not exist
    num_expected: int  # tiles that a step has about; a table made on the device has places for the most
    num_short_tokens: int  # tokens at the front of the flat batch up to the last row with few tokens
    num_tokens: int
    is_on_device: bool = False  # made on the device: tokens may be in no tile


@dataclass(frozen=True, slots=True)
class Work:
    """Items of a step; `num_items` says how many there are, on the device."""

    tiles: Tiles
    items: Tensor  # [bound, ITEM_WIDTH] int32
    num_items: Tensor  # [1] int32
    num_split_tokens: int  # tiles among the first `num_split_tokens` tokens of the batch may be split
    splits: Tensor  # [num_split_tokens, SPLIT_WIDTH] int32
    max_pieces: int


_SHORT = 32
"""Batches whose rows have equal counts of at most this many tokens are treated as decoding."""


def make_tiles(
    row_counts: tuple[int, ...], heads: int, max_row_blocks: int, device: torch.device, block_rows: int = ROWS
) -> Tiles:
    """Tiles of `heads` query heads (a power of two) by tokens; tall ones if a row has many tokens.

    The tiles of a decoding batch are never freed: a captured graph reads them.
    """
    is_decoding = row_counts[0] <= _SHORT and row_counts == (row_counts[0],) * len(row_counts)
    make = _kept_tiles if is_decoding else _recent_tiles
    return make(row_counts, heads, max_row_blocks, device, block_rows)


def _make_tiles(
    row_counts: tuple[int, ...], heads: int, max_row_blocks: int, device: torch.device, block_rows: int
) -> Tiles:
    per_block = block_rows // heads
    row_blocks = max_row_blocks if max(row_counts) > per_block else 1
    step = per_block * row_blocks
    table: list[tuple[int, int, int, int]] = []
    start = num_short_tokens = 0
    for row, count in enumerate(row_counts):
        table += [(row, start + o, min(step, count - o), 0) for o in range(0, count, step)]
        start += count
        if count <= per_block:
            num_short_tokens = start
    return Tiles(row_blocks, step, _to_device(table, device), len(table), num_short_tokens, start)


def make_tiles_on_device(
    rows: DeviceCounts, *, num_tokens: int, heads: int, max_row_blocks: int, block_rows: int = ROWS
) -> Tiles:
    """`make_tiles` of counts that only the device knows, of a batch of `num_tokens`. Decode rows come first."""
    num_rows, device = rows.counts.shape[0], rows.counts.device
    per_tile = block_rows // heads * max_row_blocks
    num_tiles = triton.cdiv(num_tokens, per_tile) + num_rows
    table = torch.empty(num_tiles, TILE_WIDTH.value, dtype=torch.int32, device=device)
    _tiles_kernel[(1,)](
        rows.counts,
        rows.starts,
        table,
        num_rows,
        num_tiles,
        PER_TILE=per_tile,
        ROWS=_block(num_rows),
        BLOCK=_block(num_tiles),
        num_warps=4,
    )
    return Tiles(
        max_row_blocks,
        per_tile,
        table,
        num_expected=triton.cdiv(num_tokens, per_tile),
        num_short_tokens=min(num_rows * rows.decode_width, num_tokens),
        num_tokens=num_tokens,
        is_on_device=True,
    )


@triton.jit(do_not_specialize=["num_rows", "num_tiles"])
def _tiles_kernel(
    p_counts,  # [num_rows] int64
    p_starts,  # [num_rows] int64
    p_tiles,  # [num_tiles, TILE_WIDTH] int32
    num_rows,
    num_tiles,
    PER_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_row = tl.arange(0, ROWS)
    m_row = o_row < num_rows
    b_count = tl.load(p_counts + o_row, mask=m_row, other=0).to(tl.int32)
    b_start = tl.load(p_starts + o_row, mask=m_row, other=0).to(tl.int32)
    b_tiles = (b_count + PER_TILE - 1) // PER_TILE
    b_place = tl.cumsum(b_tiles, axis=0) - b_tiles
    for i in range(tl.max(b_tiles, axis=0)):
        b_left = tl.minimum(b_count - i * PER_TILE, PER_TILE)
        _store_tile(p_tiles, b_place + i, o_row, b_start + i * PER_TILE, b_left, i < b_tiles)
    o_tile = tl.arange(0, BLOCK)
    b_nothing = tl.zeros([BLOCK], tl.int32)
    m_none = (o_tile >= tl.sum(b_tiles, axis=0)) & (o_tile < num_tiles)
    _store_tile(p_tiles, o_tile, b_nothing, b_nothing, b_nothing, m_none)


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
    here = torch.tensor(values, dtype=torch.int32)
    return here if device.type == "cpu" else here.pin_memory().to(device, non_blocking=True)


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
    has_enough = tiles.num_expected * num_kv_heads >= 2 * num_ctas and tiles.row_blocks > 1
    token_bytes = num_heads * max_pieces * (head_dim + 2) * 4
    choices = (tiles.num_short_tokens,) if has_enough else (tiles.num_tokens, tiles.num_short_tokens)
    fitting = [count for count in choices if count * token_bytes <= _MAX_PARTIAL_BYTES]
    num_split_tokens = fitting[0] if fitting and max_pieces > 1 else 0
    bound = num_tiles * (max_pieces if num_split_tokens else 1)
    # tokens that are in no tile keep 0: they have nothing to merge
    empty_splits = torch.zeros if tiles.is_on_device else torch.empty
    work = Work(
        tiles=tiles,
        items=torch.empty(bound, ITEM_WIDTH.value, dtype=torch.int32, device=device),
        num_items=torch.empty(1, dtype=torch.int32, device=device),
        num_split_tokens=num_split_tokens,
        splits=empty_splits(max(num_split_tokens, 1), SPLIT_WIDTH.value, dtype=torch.int32, device=device),
        max_pieces=max_pieces,
    )
    block = _block(num_tiles) if tiles.is_on_device else max(128, triton.next_power_of_2(num_tiles))
    _plan_kernel[(1,)](
        tiles.table,
        kv_lengths,
        work.items,
        work.num_items,
        work.splits,
        num_tiles,
        num_split_tokens,
        kv_start,
        window or 0,
        max(1, num_ctas // num_kv_heads),
        MAY_SPLIT=num_split_tokens > 0,
        HAS_WINDOW=window is not None,
        TOKENS=tiles.tokens_per_tile,
        PIECE=PIECE,
        LANES=LANES,
        CLASSES=_COST_CLASSES,
        BLOCK=block,
        num_warps=4 if block <= 512 else 8,
    )
    return work


@triton.jit(do_not_specialize=["num_tiles", "num_split_tokens", "kv_start", "window", "num_lanes"])
def _plan_kernel(
    p_tiles,  # [num_tiles, TILE_WIDTH] int32
    p_lengths,  # [num_tokens] int64
    p_items,  # [bound, ITEM_WIDTH] int32
    p_num_items,  # [1] int32
    p_splits,  # [num_split_tokens, SPLIT_WIDTH] int32
    num_tiles,
    num_split_tokens,
    kv_start,
    window,
    num_lanes,  # CTAs for one kv head
    MAY_SPLIT: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    TOKENS: tl.constexpr,
    PIECE: tl.constexpr,
    LANES: tl.constexpr,
    CLASSES: tl.constexpr,
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
    m_short = i_token + count <= num_split_tokens
    if MAY_SPLIT:
        total = tl.sum(num_pieces, axis=0)
        wave = tl.maximum((total + num_lanes - 1) // num_lanes, 1)
        if tl.sum((num_pieces + wave - 1) // wave, axis=0) > num_lanes:
            wave = tl.maximum(wave // 2, 1)
        size = tl.where(m_short, wave, size)
    is_split = num_pieces > size
    num_parts = tl.where(is_split, (num_pieces + size - 1) // size, tl.where(m_tile, 1, 0))

    cost = tl.minimum((end - begin + LANES - 1) // LANES, size * (PIECE // LANES))
    cost_class = cost * CLASSES // (tl.max(cost, axis=0) + 1)
    place = tl.zeros([BLOCK], tl.int32)
    num_placed = 0
    for i in range(CLASSES):
        b_parts = tl.where(cost_class == CLASSES - 1 - i, num_parts, 0)
        place += tl.where(b_parts > 0, num_placed + tl.cumsum(b_parts, axis=0) - b_parts, 0)
        num_placed += tl.sum(b_parts, axis=0)
    tl.store(p_num_items, num_placed)
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
        m_token = m_tile & (i < count) & (i_token + i < num_split_tokens)
        p_split = p_splits + (i_token + i) * SPLIT_WIDTH
        tl.store(p_split + SPLIT_MERGED, tl.where(is_split, size, 0), mask=m_token)
        tl.store(p_split + SPLIT_FIRST_PIECE, i_piece, mask=m_token)
