"""Attention over the paged KV cache, one arithmetic for prefill, decode and verify.

Every product has a fixed shape: 16 query rows × 64 KV positions. Query rows are the query heads of one kv
head, for as many tokens of one request as fit; KV tiles start at absolute multiples of 64. One batched call computes
the products of all tiles. A token's score row has one exact maximum; weights and values are then added tile by tile,
in ascending order, so that tiles after a token's length add exactly 0.

    tile of a group of 4: | token 0: head 0 1 2 3 | token 1: 0 1 2 3 | token 2 | token 3 |   16 rows
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.reference.host_counts import host_counts

ROWS = 16
"""Query rows of one product; more than 16 heads in a group take a multiple."""

LANES = 64
"""KV positions of one product."""

_BUFFER = 1 << 22
"""Elements of K (and of V) gathered at a time; it bounds memory and cannot change a result."""

_MINUS_INFINITY = -0x800000
"""The bits of fp32 -inf."""

_LOWEST = torch.finfo(torch.float32).min

_FLOOR = -64.0
"""Exponents below this are raised to it: the weights are negligible beside exp(0) = 1 either way, and exp avoids the
denormal numbers and the infinity that make it 15 to 130 times slower."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tokens that share a product, for one number of tokens per tile."""

    rows: Tensor  # [num_tiles] int64, request row of a tile
    tokens: Tensor  # [num_tiles, tokens_per_tile] int64, 0 where the tile has no token
    has_token: Tensor  # [num_tiles, tokens_per_tile] bool
    places: Tensor  # [num_tokens] int64, tile × tokens_per_tile + place of each token


@dataclass(frozen=True, slots=True)
class Part:
    """Tiles that are computed together: T of them, against J KV tiles of Hk heads."""

    tiles: slice
    cache_rows: Tensor  # [T, Hk, J, LANES] int32, rows of the cache seen as [slots × Hk, D]
    # bits to keep or to set in fp32 numbers: ten times as fast as masked_fill with a bool mask
    visible: Tensor  # [T, 1, J, tokens_per_tile, 1, LANES] int32, all bits where a token sees a position
    hidden: Tensor  # likewise, the bits of -inf where it does not
    seen: Tensor  # [T, 1, J, LANES, 1] int32, all bits where any token of the tile sees it


@dataclass(slots=True)
class AttentionPlan:
    """Rows and lengths of a step; parts are made on first use and shared by all layers."""

    block_tables: Tensor  # [num_rows, max_blocks] int32
    kv_lengths: Tensor  # [num_tokens] int64
    row_counts: tuple[int, ...]
    num_kv_tiles: int
    _parts: dict[tuple[int | None, ...], tuple[Part, ...]] = field(default_factory=dict)

    def tiles(self, tokens_per_tile: int) -> Tiles:
        """The tiles of this step."""
        return _tiles(self.row_counts, tokens_per_tile, self.kv_lengths.device)

    def parts(
        self,
        tokens_per_tile: int,
        *,
        num_kv_heads: int,
        head_dim: int,
        block_size: int,
        kv_start: int,
        window: int | None,
    ) -> tuple[Part, ...]:
        """All tiles of this step, cut so that no part gathers more than the buffer holds."""
        key = (tokens_per_tile, num_kv_heads, head_dim, block_size, kv_start, window)
        if key not in self._parts:
            tiles = self.tiles(tokens_per_tile)
            is_hidden = self._hidden(tiles, kv_start=kv_start, window=window)
            visible = torch.where(is_hidden, 0, -1).int()
            hidden = torch.where(is_hidden, _MINUS_INFINITY, 0).int()
            seen = torch.where(is_hidden.all(dim=3)[..., 0, :, None], 0, -1).int()
            cache_rows = self._cache_rows(block_size, num_kv_heads)
            size = max(1, _BUFFER // (num_kv_heads * self.num_kv_tiles * LANES * head_dim))
            self._parts[key] = tuple(
                Part(part, cache_rows.index_select(0, tiles.rows[part]), visible[part], hidden[part], seen[part])
                for part in _slices(tiles.rows.shape[0], size)
            )
        return self._parts[key]

    def _hidden(self, tiles: Tiles, *, kv_start: int, window: int | None) -> Tensor:
        ends = torch.where(tiles.has_token, self.kv_lengths[tiles.tokens], 0)[:, None, None, :, None, None]
        starts = torch.full_like(ends, kv_start)
        if window is not None:
            starts = torch.maximum(starts, ends - window)
        lanes = torch.arange(self.num_kv_tiles * LANES, device=ends.device).view(-1, 1, 1, LANES)
        return (lanes < starts) | (lanes >= ends)

    def _cache_rows(self, block_size: int, num_kv_heads: int) -> Tensor:
        """[num_rows, num_kv_heads, num_kv_tiles, LANES] int32."""
        num_rows, max_blocks = self.block_tables.shape
        positions = torch.arange(self.num_kv_tiles * LANES, device=self.block_tables.device)
        blocks = positions // block_size
        table = self.block_tables.index_select(1, blocks.clamp(max=max_blocks - 1))
        table = torch.where(blocks < max_blocks, table, 0)  # after the end of the table: the null block
        slots = table * block_size + positions % block_size
        heads = torch.arange(num_kv_heads, device=slots.device)[:, None]
        rows = (slots[:, None] * num_kv_heads + heads).int()
        return rows.view(num_rows, num_kv_heads, self.num_kv_tiles, LANES)


@lru_cache(maxsize=256)
def _tiles(row_counts: tuple[int, ...], tokens_per_tile: int, device: torch.device) -> Tiles:
    counts = np.asarray(row_counts, dtype=np.int64)
    tiles_of_row = -(-counts // tokens_per_tile)
    rows = np.repeat(np.arange(len(counts)), tiles_of_row)
    index_in_row = np.arange(len(rows)) - np.repeat(np.cumsum(tiles_of_row) - tiles_of_row, tiles_of_row)
    offsets = index_in_row[:, None] * tokens_per_tile + np.arange(tokens_per_tile)
    has_token = offsets < counts[rows, None]
    tokens = np.where(has_token, offsets + (np.cumsum(counts) - counts)[rows, None], 0)
    places = np.flatnonzero(has_token)  # tiles keep the order of the tokens
    return Tiles(*(torch.from_numpy(array).to(device) for array in (rows, tokens, has_token, places)))


def plan_attention(
    block_tables: Tensor,
    kv_lengths: Tensor,
    *,
    row_counts: tuple[int, ...] | DeviceCounts,
    kv_length_bound: int,
) -> AttentionPlan:
    """block_tables [num_rows, max_blocks] int32, kv_lengths [M] int64 (0: padding), tokens of each row."""
    return AttentionPlan(block_tables, kv_lengths, host_counts(row_counts), max(1, -(-kv_length_bound // LANES)))


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
    """q [M, Hq, D], caches [num_blocks, block_size, Hk, D], sinks [Hq] -> [M, Hq, D], computed in fp32. Values may have
    another width than keys; the output then has theirs.

    Token t sees KV indices [max(kv_start, kv_length - window), kv_length) of its row; one that sees nothing
    gives zeros. Slots that no token of a row sees may hold anything, NaN included. A sink is one more logit,
    unscaled, whose weight is left out of the output.
    """
    num_heads, head_dim = q.shape[1:]
    block_size, num_kv_heads = k_cache.shape[1:3]
    group = num_heads // num_kv_heads
    assert group * num_kv_heads == num_heads, f"{num_heads} query heads do not divide by {num_kv_heads} kv heads"
    tokens_per_tile = max(1, ROWS // group)
    used = tokens_per_tile * group
    unused = -used % ROWS
    tiles = plan.tiles(tokens_per_tile)

    q_tiles = (q.float() * scale).index_select(0, tiles.tokens.view(-1))
    q_tiles = q_tiles.view(-1, tokens_per_tile, num_kv_heads, group, head_dim).transpose(1, 2)
    q_tiles = q_tiles.reshape(-1, num_kv_heads, used, head_dim)
    if unused:
        q_tiles = pad(q_tiles, (0, 0, 0, unused))
    if sinks is not None:
        sinks = sinks.float().view(num_kv_heads, 1, group).expand(-1, tokens_per_tile, -1)
        sinks = pad(sinks.reshape(num_kv_heads, used), (0, unused))

    parts = plan.parts(
        tokens_per_tile,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        block_size=block_size,
        kv_start=kv_start,
        window=window,
    )
    value_dim = v_cache.shape[3]
    k_rows, v_rows = k_cache.view(-1, head_dim), v_cache.view(-1, value_dim)
    outs = [_attend(q_tiles[part.tiles], k_rows, v_rows, part, group=group, sinks=sinks) for part in parts]
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    by_token = out[:, :, :used].reshape(-1, num_kv_heads, tokens_per_tile, group, value_dim).transpose(1, 2)
    return by_token.reshape(-1, num_heads, value_dim).index_select(0, tiles.places).to(q.dtype)


def _attend(q: Tensor, k_rows: Tensor, v_rows: Tensor, part: Part, *, group: int, sinks: Tensor | None) -> Tensor:
    """q [T, Hk, R, D], scaled; caches as rows [slots × Hk, D]; sinks [Hk, R] -> [T, Hk, R, width of values]."""
    num_tiles, num_kv_heads, num_rows, head_dim = q.shape
    num_kv_tiles, tokens_per_tile = part.visible.shape[2:4]
    kv_at_once = max(1, _BUFFER // (num_tiles * num_kv_heads * LANES * head_dim))
    kv_slices = list(_slices(num_kv_tiles, kv_at_once))

    pieces = []
    for kv in kv_slices:
        k = k_rows.index_select(0, part.cache_rows[:, :, kv].reshape(-1)).float().view(-1, LANES, head_dim)
        repeated = q[:, :, None].expand(-1, -1, kv.stop - kv.start, -1, -1).reshape(-1, num_rows, head_dim)
        products = torch.bmm(repeated, k.transpose(1, 2))
        pieces.append(products.view(num_tiles, num_kv_heads, -1, num_rows, LANES))
    scores = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
    used = scores[..., : tokens_per_tile * group, :].unflatten(3, (tokens_per_tile, group)).view(torch.int32)
    used.bitwise_and_(part.visible).bitwise_or_(part.hidden)

    top = scores.amax(dim=(2, 4)).clamp_(min=_LOWEST)  # [T, Hk, R]; exact in any order
    if sinks is not None:
        top = torch.maximum(top, sinks)
    weights = scores.sub_(top[:, :, None, :, None]).clamp_(min=_FLOOR).exp_()
    used.bitwise_and_(part.visible)
    flat = weights.view(-1, num_rows, LANES)
    sums = torch.bmm(flat, flat.new_ones(1, LANES, ROWS).expand(flat.shape[0], -1, -1))[..., 0]
    sums = sums.view(num_tiles, num_kv_heads, num_kv_tiles, num_rows)
    total = torch.zeros_like(top) if sinks is None else torch.exp(sinks - top)
    for i in range(num_kv_tiles):
        total += sums[:, :, i]

    acc = q.new_zeros(num_tiles, num_kv_heads, num_rows, v_rows.shape[1])
    for kv in kv_slices:
        # values that no token sees are cleared, not only weighted by 0: 0 × NaN is NaN
        v = v_rows.index_select(0, part.cache_rows[:, :, kv].reshape(-1)).float()
        v = v.view(num_tiles, num_kv_heads, -1, LANES, v_rows.shape[1])
        v.view(torch.int32).bitwise_and_(part.seen[:, :, kv])
        products = torch.bmm(weights[:, :, kv].reshape(-1, num_rows, LANES), v.flatten(0, 2))
        products = products.view(num_tiles, num_kv_heads, -1, *acc.shape[2:])
        for i in range(products.shape[2]):
            acc += products[:, :, i]
    return acc / total.masked_fill(total == 0, 1.0)[..., None]


def _slices(length: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(length)."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
