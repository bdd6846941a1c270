"""Attention over the paged KV cache on any GPU: one arithmetic for prefill, decode and verify.

`attention_plan` assigns the work to CTAs, `attention_tiles` computes it, and `attention_state` merges the parts of
split work. This file has the shapes, the scratch memory and the launches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import triton
from torch import Tensor

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.triton.attention_plan import (
    LANES,
    PIECE,
    ROWS,
    Tiles,
    Work,
    make_tiles,
    make_tiles_on_device,
    make_work,
)
from outrider.kernels.triton.attention_records import STATE_WIDTH
from outrider.kernels.triton.attention_state import combine_kernel
from outrider.kernels.triton.attention_tiles import attention_kernel
from outrider.kernels.triton.launch import OVERLAPPED, empty_rows, num_sms, shared_bytes

_MAX_STAGES = 4

_MANY_MERGES = 4096
"""Above this number of merges (tokens × heads) four heads share a CTA: most find nothing to merge, and fewer CTAs
finish sooner. With fewer merges each has many pieces, and more SMs help (benchmarks/log.md, entry 9)."""


@dataclass(slots=True)
class AttentionPlan:
    """Rows and lengths of a step; lists of work are made on first use and shared by all layers."""

    block_tables: Tensor  # [num_rows, max_blocks] int32
    kv_lengths: Tensor  # [num_tokens] int64
    row_counts: tuple[int, ...] | DeviceCounts
    kv_length_bound: int
    _made: dict[tuple, Work] = field(default_factory=dict)

    def work(self, *, num_heads: int, num_kv_heads: int, head_dim: int, kv_start: int, window: int | None) -> Work:
        """Work of the layers of one kind."""
        key = (num_heads, num_kv_heads, head_dim, kv_start, window)
        if key not in self._made:
            heads = triton.next_power_of_2(num_heads // num_kv_heads)
            self._made[key] = make_work(
                self._tiles(heads, **self.tile_size(head_dim)),
                self.kv_lengths,
                kv_length_bound=self.kv_length_bound,
                kv_start=kv_start,
                window=window,
                num_heads=num_heads,
                num_kv_heads=num_kv_heads,
                head_dim=head_dim,
                num_ctas=num_sms(self.kv_lengths.device),
            )
        return self._made[key]

    @staticmethod
    def tile_size(head_dim: int) -> dict[str, int]:
        """Rows of a block, and blocks of a tile at most."""
        return {"block_rows": tile_rows(head_dim), "max_row_blocks": 1}

    def _tiles(self, heads: int, *, block_rows: int, max_row_blocks: int) -> Tiles:
        counts, num_tokens = self.row_counts, self.kv_lengths.shape[0]
        if isinstance(counts, DeviceCounts):
            return make_tiles_on_device(
                counts, num_tokens=num_tokens, heads=heads, max_row_blocks=max_row_blocks, block_rows=block_rows
            )
        return make_tiles(counts, heads, max_row_blocks, self.kv_lengths.device, block_rows)


def tile_rows(head_dim: int) -> int:
    """Query rows of a tile: with wide heads fewer, as the sums of a row are kept in registers."""
    return ROWS if head_dim <= 128 else ROWS // 2


@dataclass(frozen=True, slots=True)
class Call:
    """One layer's attention: its arguments, its work, and scratch memory for the states of split tiles."""

    q: Tensor  # [M, Hq, D]
    k_cache: Tensor  # [num_blocks, block_size, Hk, D]
    v_cache: Tensor
    plan: AttentionPlan
    work: Work
    out: Tensor  # [M, Hq, D]
    acc: Tensor  # [states, D] fp32
    state: Tensor  # [states, STATE_WIDTH] fp32
    scale: float
    kv_start: int
    window: int | None
    sinks: Tensor | None  # [Hq]


def plan_attention(
    block_tables: Tensor,
    kv_lengths: Tensor,
    *,
    row_counts: tuple[int, ...] | DeviceCounts,
    kv_length_bound: int,
) -> AttentionPlan:
    """block_tables [num_rows, max_blocks] int32, kv_lengths [M] int64 (0: padding), tokens of each row."""
    check_rows(block_tables, kv_lengths, row_counts)
    return AttentionPlan(block_tables, kv_lengths, row_counts, kv_length_bound)


def check_rows(block_tables: Tensor, kv_lengths: Tensor, row_counts: tuple[int, ...] | DeviceCounts) -> None:
    """Asserts what a plan needs of its arguments."""
    assert block_tables.dtype == torch.int32 and block_tables.stride(1) == 1, "block tables are rows of int32"
    assert kv_lengths.dtype == torch.int64 and kv_lengths.is_contiguous(), "kv lengths are int64"
    if not isinstance(row_counts, DeviceCounts):
        total = sum(row_counts)
        assert total == kv_lengths.shape[0], f"{total} tokens in rows, {kv_lengths.shape[0]} lengths"


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

    Token t sees KV indices [max(kv_start, kv_length - window), kv_length) of its row; one that sees nothing gives
    zeros. Slots that no token of a tile sees may hold anything, NaN included. A sink is one more logit, unscaled,
    whose weight is left out of the output.
    """
    _check(q, k_cache, v_cache)
    return attended(
        q, k_cache, v_cache, plan, scale=scale, kv_start=kv_start, window=window, sinks=sinks,
        attend=_attend, combine=_combine,
    )  # fmt: skip


def attended(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    kv_start: int,
    window: int | None,
    sinks: Tensor | None,
    attend: Callable[[Call], None],
    combine: Callable[[Call, int], None],
) -> Tensor:
    """[M, Hq, D], by two kernels: `attend` computes items of work, `combine` merges split tiles, some heads at once."""
    num_tokens, num_heads, head_dim = q.shape
    out = empty_rows(*q.shape, dtype=q.dtype, device=q.device)
    if num_tokens == 0:
        return out
    work = plan.work(
        num_heads=num_heads,
        num_kv_heads=k_cache.shape[2],
        head_dim=head_dim,
        kv_start=kv_start,
        window=window,
    )
    num_states = max(work.num_split_tokens * num_heads * work.max_pieces, 1)
    acc = torch.empty(num_states, head_dim, dtype=torch.float32, device=q.device)
    state = torch.empty(num_states, STATE_WIDTH.value, dtype=torch.float32, device=q.device)
    call = Call(q, k_cache, v_cache, plan, work, out, acc, state, scale, kv_start, window, sinks)
    attend(call)
    if work.num_split_tokens:
        combine(call, 4 if work.num_split_tokens * num_heads > _MANY_MERGES else 1)
    return out


def _check(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    num_heads, head_dim = q.shape[1:]
    block_size, num_kv_heads = k_cache.shape[1:3]
    group = num_heads // num_kv_heads
    assert group * num_kv_heads == num_heads, f"{num_heads} query heads do not divide by {num_kv_heads} kv heads"
    assert group <= tile_rows(head_dim), f"{group} query heads to a kv head, at most {tile_rows(head_dim)}"
    assert head_dim <= 256, f"head_dim={head_dim} is more than 256"
    assert block_size & (block_size - 1) == 0, f"block_size={block_size} is not a power of two"
    assert k_cache.is_contiguous() and v_cache.is_contiguous(), "the caches are contiguous"
    assert q.stride(2) == 1, f"q has strides {q.stride()}"
    assert q.dtype == k_cache.dtype == v_cache.dtype, f"q is {q.dtype}, the caches {k_cache.dtype}, {v_cache.dtype}"


def _attend(call: Call) -> None:
    q, plan = call.q, call.plan
    num_heads, head_dim = q.shape[1:]
    block_size, num_kv_heads = call.k_cache.shape[1:3]
    group, columns, rows = num_heads // num_kv_heads, padded_head(head_dim), tile_rows(head_dim)
    stage, own = 2 * LANES * columns * q.element_size(), rows * columns * q.element_size()
    attention_kernel[(num_sms(q.device),)](
        q,
        call.k_cache,
        call.v_cache,
        call.work.items,
        call.work.num_items,
        plan.block_tables,
        plan.kv_lengths,
        call.out,
        call.acc,
        call.state,
        q if call.sinks is None else call.sinks,
        call.scale * math.log2(math.e),
        call.kv_start,
        call.window or 0,
        q.stride(0),
        q.stride(1),
        call.out.stride(0),
        plan.block_tables.stride(0),
        plan.block_tables.shape[1],
        call.work.max_pieces,
        BLOCK_SIZE=block_size,
        KV_HEADS=num_kv_heads,
        GROUP=group,
        GROUP_PAD=triton.next_power_of_2(group),
        D=head_dim,
        D_PAD=columns,
        HAS_WINDOW=call.window is not None,
        HAS_SINKS=call.sinks is not None,
        ROWS=rows,
        LANES=LANES,
        PIECE=PIECE,
        num_warps=4 if columns <= 64 else 8,
        num_stages=max(1, min(_MAX_STAGES, (shared_bytes(q.device) - own) // stage)),
        **OVERLAPPED,
    )


def _combine(call: Call, heads_to_program: int) -> None:
    num_heads, head_dim = call.q.shape[1:]
    combine_kernel[(call.work.num_split_tokens, triton.cdiv(num_heads, heads_to_program))](
        call.plan.kv_lengths,
        call.work.splits,
        call.acc,
        call.state,
        call.q if call.sinks is None else call.sinks,
        call.out,
        num_heads,
        call.out.stride(0),
        call.work.max_pieces,
        HEADS=heads_to_program,
        D=head_dim,
        D_PAD=padded_head(head_dim),
        HAS_SINKS=call.sinks is not None,
        num_warps=heads_to_program,
        **OVERLAPPED,
    )


def padded_head(head_dim: int) -> int:
    """Columns of a tile: a power of two that a product can have."""
    return max(16, triton.next_power_of_2(head_dim))
