"""Records that the attention kernels exchange: the names of their entries."""

import triton.language as tl

TILE_WIDTH = tl.constexpr(4)
"""int32 numbers of a query tile; the last is unused."""
TILE_ROW = tl.constexpr(0)
"""Row of the step."""
TILE_TOKEN = tl.constexpr(1)
"""First token, in the flat batch."""
TILE_COUNT = tl.constexpr(2)
"""Number of tokens."""

ITEM_WIDTH = tl.constexpr(16)
"""int32 numbers of an item of work: ten, padded to a power of two."""
ITEM_ROW = tl.constexpr(0)
"""Row of the step, whose blocks hold the KV."""
ITEM_TOKEN = tl.constexpr(1)
"""First token, in the flat batch."""
ITEM_COUNT = tl.constexpr(2)
"""Number of tokens."""
ITEM_BEGIN = tl.constexpr(3)
"""First KV position, a multiple of LANES."""
ITEM_END = tl.constexpr(4)
"""Last KV position + 1."""
ITEM_MODE = tl.constexpr(5)
"""WHOLE, FIRST_PART or LATER_PART."""
ITEM_LOW = tl.constexpr(6)
"""Lowest KV position that any token of the tile sees."""
ITEM_FIRST_PIECE = tl.constexpr(7)
"""First piece of the tile."""
ITEM_ALL_END = tl.constexpr(8)
"""Last KV position + 1 that all tokens of the tile see."""
ITEM_ALL_LOW = tl.constexpr(9)
"""First KV position that all tokens of the tile see."""

WHOLE = tl.constexpr(0)
"""Mode of an item that is a whole tile: it writes the output."""
FIRST_PART = tl.constexpr(1)
"""Mode of the first part of a tile: it writes the merged state of its pieces."""
LATER_PART = tl.constexpr(2)
"""Mode of every other part: it writes the state of each piece."""

SPLIT_WIDTH = tl.constexpr(2)
"""int32 numbers of a token."""
SPLIT_MERGED = tl.constexpr(0)
"""Pieces that the first part of its tile has merged; 0 where the tile is whole."""
SPLIT_FIRST_PIECE = tl.constexpr(1)
"""First piece of its tile."""

STATE_WIDTH = tl.constexpr(2)
"""fp32 numbers of a softmax state, beside its weighted values."""
STATE_MAX = tl.constexpr(0)
"""Largest score, in log2 units."""
STATE_SUM = tl.constexpr(1)
"""Sum of weights 2^(score - maximum)."""
