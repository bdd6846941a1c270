"""Attention over the paged KV cache, one arithmetic for prefill, decode and verify.

Every product has a fixed shape: 16 query rows × 64 KV positions. Query rows are the heads of one kv head, of as
many tokens of one request as fit; KV tiles stand at absolute multiples of 64. Products of all tiles go into one
batched call. A token's score row has one exact maximum; weights and values are then added tile by tile, in
ascending order, so that tiles behind a token's length add exactly 0.

    tile of a group of 4: | token 0: head 0 1 2 3 | token 1: 0 1 2 3 | token 2 | token 3 |   16 rows
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from outrider.kernels.reference.norm import tree_sum

ROWS = 16
"""Query rows of one product; more than 16 heads in a group take a multiple."""

LANES = 64
"""KV positions of one product."""

_BUFFER = 1 << 22
"""Elements of K (and of V) gathered at a time; bounds memory, cannot change a result."""

_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class Tiles:
    """Which tokens share a product, for one number of tokens per tile."""

    rows: Tensor  # [num_tiles] int64, request row of a tile
    tokens: Tensor  # [num_tiles, tokens_per_tile] int64, 0 where the tile has no token
    has_token: Tensor  # [num_tiles, tokens_per_tile] bool
    places: Tensor  # [num_tokens] int64, tile × tokens_per_tile + place of each token


@dataclass(slots=True)
class AttentionPlan:
    """The step as attention sees it; derived tables are made on first use and shared by all layers."""

    block_tables: Tensor  # [num_rows, max_blocks] int32
    kv_lengths: Tensor  # [num_tokens] int64
    row_counts: tuple[int, ...]
    num_kv_tiles: int
    _made: dict[tuple, Tensor | Tiles] = field(default_factory=dict)

    def tiles(self, tokens_per_tile: int) -> Tiles:
        """The tiles of this step."""
        return _tiles(self.row_counts, tokens_per_tile, self.kv_lengths.device)

    def visible(self, tokens_per_tile: int, *, kv_start: int, window: int | None) -> Tensor:
        """[num_tiles, tokens_per_tile, num_kv_tiles, LANES] bool: what each token sees."""
        key = ("visible", tokens_per_tile, kv_start, window)
        if key not in self._made:
            tiles = self.tiles(tokens_per_tile)
            ends = torch.where(tiles.has_token, self.kv_lengths[tiles.tokens], 0)[..., None, None]
            starts = torch.full_like(ends, kv_start)
            if window is not None:
                starts = torch.maximum(starts, ends - window)
            lanes = torch.arange(self.num_kv_tiles * LANES, device=ends.device).view(-1, LANES)
            self._made[key] = (lanes >= starts) & (lanes < ends)
        return self._made[key]  # type: ignore[return-value]

    def cache_rows(self, block_size: int, num_kv_heads: int) -> Tensor:
        """[num_rows, num_kv_heads, num_kv_tiles, LANES] int64: rows of the cache seen as [slots × heads, D]."""
        key = ("cache_rows", block_size, num_kv_heads)
        if key not in self._made:
            num_rows, max_blocks = self.block_tables.shape
            positions = torch.arange(self.num_kv_tiles * LANES, device=self.block_tables.device)
            blocks = positions // block_size
            table = self.block_tables.long().index_select(1, blocks.clamp(max=max_blocks - 1))
            table = torch.where(blocks < max_blocks, table, 0)  # behind the table: the null block
            slots = table * block_size + positions % block_size
            heads = torch.arange(num_kv_heads, device=slots.device)[:, None]
            rows = slots[:, None] * num_kv_heads + heads
            self._made[key] = rows.view(num_rows, num_kv_heads, self.num_kv_tiles, LANES)
        return self._made[key]  # type: ignore[return-value]


@lru_cache(maxsize=256)
def _tiles(row_counts: tuple[int, ...], tokens_per_tile: int, device: torch.device) -> Tiles:
    counts = np.asarray(row_counts, dtype=np.int64)
    tiles_of_row = -(-counts // tokens_per_tile)
    rows = np.repeat(np.arange(len(counts)), tiles_of_row)
    index_in_row = np.arange(len(rows)) - np.repeat(np.cumsum(tiles_of_row) - tiles_of_row, tiles_of_row)
    offsets = index_in_row[:, None] * tokens_per_tile + np.arange(tokens_per_tile)
    has_token = offsets < counts[rows, None]
    tokens = np.where(has_token, offsets + (np.cumsum(counts) - counts)[rows, None], 0)
    places = np.flatnonzero(has_token)  # tokens lie in tiles in their own order
    return Tiles(*(torch.from_numpy(array).to(device) for array in (rows, tokens, has_token, places)))


def plan_attention(
    block_tables: Tensor, kv_lengths: Tensor, *, row_counts: tuple[int, ...], kv_length_bound: int
) -> AttentionPlan:
    """block_tables [num_rows, max_blocks] int32, kv_lengths [M] int64 (0: padding), tokens of each row."""
    return AttentionPlan(block_tables, kv_lengths, row_counts, max(1, -(-kv_length_bound // LANES)))


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    kv_start: int = 0,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """q [M, Hq, D], caches [num_blocks, block_size, Hk, D], sinks [Hq] -> [M, Hq, D].

    Token t sees KV indices [max(kv_start, kv_length - window), kv_length) of its row; one that sees nothing
    gives zeros. Unseen slots may hold anything, NaN included. A sink is one more logit, unscaled, whose weight
    is left out of the output.
    """
    num_heads, head_dim = q.shape[1:]
    num_kv_heads = k_cache.shape[2]
    group = num_heads // num_kv_heads
    assert group * num_kv_heads == num_heads, f"{num_heads} query heads do not divide by {num_kv_heads} kv heads"
    tokens_per_tile = max(1, ROWS // group)
    used = tokens_per_tile * group
    num_rows = -(-used // ROWS) * ROWS
    tiles = plan.tiles(tokens_per_tile)
    num_tiles = tiles.rows.shape[0]

    q_tiles = q.new_zeros(num_tiles, num_kv_heads, num_rows, head_dim)
    q_tiles[:, :, :used] = (
        q.index_select(0, tiles.tokens.view(-1))
        .view(num_tiles, tokens_per_tile, num_kv_heads, group, head_dim)
        .transpose(1, 2)
        .reshape(num_tiles, num_kv_heads, used, head_dim)
    )
    sink_rows = None
    if sinks is not None:
        sink_rows = q.new_full((num_kv_heads, num_rows), _LOWEST)
        by_head = sinks.to(q.dtype).view(num_kv_heads, 1, group)
        sink_rows[:, :used] = by_head.expand(-1, tokens_per_tile, -1).reshape(num_kv_heads, used)

    visible = plan.visible(tokens_per_tile, kv_start=kv_start, window=window)
    cache_rows = plan.cache_rows(k_cache.shape[1], num_kv_heads)
    out = torch.empty_like(q_tiles)
    tiles_at_once = max(1, _BUFFER // (num_kv_heads * plan.num_kv_tiles * LANES * head_dim))
    for part in _parts(num_tiles, tiles_at_once):
        out[part] = _attend(
            q_tiles[part],
            k_cache.view(-1, head_dim),
            v_cache.view(-1, head_dim),
            cache_rows.index_select(0, tiles.rows[part]),
            visible[part],
            group=group,
            scale=scale,
            sinks=sink_rows,
        )
    by_token = out[:, :, :used].reshape(num_tiles, num_kv_heads, tokens_per_tile, group, head_dim)
    return (
        by_token.transpose(1, 2)
        .reshape(num_tiles * tokens_per_tile, num_heads, head_dim)
        .index_select(0, tiles.places)
    )


def _attend(
    q: Tensor,
    k_rows: Tensor,
    v_rows: Tensor,
    cache_rows: Tensor,
    visible: Tensor,
    *,
    group: int,
    scale: float,
    sinks: Tensor | None,
) -> Tensor:
    """q [T, Hk, R, D], caches as rows [slots × Hk, D], cache_rows [T, Hk, J, LANES], visible [T, t, J, LANES]."""
    num_tiles, num_kv_heads, num_rows, head_dim = q.shape
    num_kv_tiles = cache_rows.shape[2]
    tokens_per_tile = visible.shape[1]
    shape = (num_tiles, num_kv_heads, num_kv_tiles, num_rows)
    kv_at_once = max(1, _BUFFER // (num_tiles * num_kv_heads * LANES * head_dim))

    scores = q.new_empty(*shape, LANES)
    for part in _parts(num_kv_tiles, kv_at_once):
        index = cache_rows[:, :, part]
        k = k_rows.index_select(0, index.reshape(-1)).view(-1, LANES, head_dim)
        repeated = q[:, :, None].expand(-1, -1, index.shape[2], -1, -1).reshape(-1, num_rows, head_dim)
        scores[:, :, part] = torch.bmm(repeated, k.transpose(1, 2)).view(*index.shape[:3], num_rows, LANES)
    scores.mul_(scale)
    hidden = ~visible.transpose(1, 2)  # [T, J, t, LANES]
    used = scores[..., : tokens_per_tile * group, :].unflatten(3, (tokens_per_tile, group))
    used.masked_fill_(hidden[:, None, :, :, None], float("-inf"))

    top = scores.amax(dim=(2, 4)).clamp_(min=_LOWEST)  # [T, Hk, R]; exact in any order
    if sinks is not None:
        top = torch.maximum(top, sinks)
    weights = scores.sub_(top[:, :, None, :, None]).exp_()
    sums = tree_sum(weights).squeeze(-1)  # [T, Hk, J, R]
    total = torch.zeros_like(top)
    for i in range(num_kv_tiles):
        total += sums[:, :, i]
    if sinks is not None:
        total += torch.exp(sinks - top)

    unseen = ~visible.any(dim=1)  # [T, J, LANES]; 0 × NaN is NaN, so values are cleared, not only weighted by 0
    acc = torch.zeros_like(q)
    for part in _parts(num_kv_tiles, kv_at_once):
        index = cache_rows[:, :, part]
        v = v_rows.index_select(0, index.reshape(-1)).view(*index.shape, head_dim)
        v.masked_fill_(unseen[:, None, part, :, None], 0.0)
        flat_weights = weights[:, :, part].reshape(-1, num_rows, LANES)
        products = torch.bmm(flat_weights, v.view(-1, LANES, head_dim)).view(*index.shape[:3], num_rows, head_dim)
        for i in range(products.shape[2]):
            acc += products[:, :, i]
    return acc / total.masked_fill(total == 0, 1.0)[..., None]


def _parts(length: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover range(length)."""
    return (slice(start, start + size) for start in range(0, length, size))
