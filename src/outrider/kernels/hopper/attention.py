"""Attention over the paged KV cache on a GPU: one arithmetic for prefill, decode and verify.

`attention_plan` assigns the work to CTAs, `attention_tiles` computes it, and `attention_state` merges the parts of
split work. This file has the shapes, the scratch memory and the launches.
"""

import math
from dataclasses import dataclass, field

import torch
import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from outrider.kernels.hopper.attention_plan import LANES, ROWS, Tiles, Work, make_tiles, make_tiles_on_device, make_work
from outrider.kernels.hopper.attention_records import STATE_WIDTH
from outrider.kernels.hopper.attention_state import combine_kernel
from outrider.kernels.hopper.attention_tiles import attention_kernel
from outrider.kernels.hopper.launch import OVERLAPPED, empty_rows, num_sms
from outrider.kernels.interface.cache import DeviceCounts

_STAGES = {(64, 1): 10, (64, 2): 8, (128, 1): 5, (128, 2): 4, (256, 1): 2}
"""KV tiles in flight by head dim and row blocks: as many as fit into 227 KB beside the queries."""

_HALF = 64

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
                self._tiles(heads, max_row_blocks=2 if head_dim <= 128 else 1),
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

    def _tiles(self, heads: int, *, max_row_blocks: int) -> Tiles:
        counts, num_tokens = self.row_counts, self.kv_lengths.shape[0]
        if isinstance(counts, DeviceCounts):
            return make_tiles_on_device(counts, num_tokens=num_tokens, heads=heads, max_row_blocks=max_row_blocks)
        return make_tiles(counts, heads, max_row_blocks, self.kv_lengths.device)


def plan_attention(
    block_tables: Tensor,
    kv_lengths: Tensor,
    *,
    row_counts: tuple[int, ...] | DeviceCounts,
    kv_length_bound: int,
) -> AttentionPlan:
    """block_tables [num_rows, max_blocks] int32, kv_lengths [M] int64 (0: padding), tokens of each row."""
    assert block_tables.dtype == torch.int32 and block_tables.stride(1) == 1, "block tables are rows of int32"
    assert kv_lengths.dtype == torch.int64 and kv_lengths.is_contiguous(), "kv lengths are int64"
    if not isinstance(row_counts, DeviceCounts):
        total = sum(row_counts)
        assert total == kv_lengths.shape[0], f"{total} tokens in rows, {kv_lengths.shape[0]} lengths"
    return AttentionPlan(block_tables, kv_lengths, row_counts, kv_length_bound)


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
    num_tokens, num_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[2]
    _check(q, k_cache, v_cache)
    out = empty_rows(*q.shape, dtype=q.dtype, device=q.device)
    if num_tokens == 0:
        return out
    work = plan.work(
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, kv_start=kv_start, window=window
    )
    num_states = max(work.num_split_tokens * num_heads * work.max_pieces, 1)
    acc = torch.empty(num_states, head_dim, dtype=torch.float32, device=q.device)
    state = torch.empty(num_states, STATE_WIDTH.value, dtype=torch.float32, device=q.device)
    _attend(
        q,
        k_cache,
        v_cache,
        plan=plan,
        work=work,
        out=out,
        acc=acc,
        state=state,
        scale=scale,
        kv_start=kv_start,
        window=window,
        sinks=sinks,
    )
    if work.num_split_tokens:
        heads_to_cta = 4 if work.num_split_tokens * num_heads > _MANY_MERGES else 1
        combine_kernel[(work.num_split_tokens, triton.cdiv(num_heads, heads_to_cta))](
            plan.kv_lengths,
            work.splits,
            acc,
            state,
            q if sinks is None else sinks,
            out,
            num_heads,
            out.stride(0),
            work.max_pieces,
            HEADS=heads_to_cta,
            D=head_dim,
            HAS_SINKS=sinks is not None,
            num_warps=heads_to_cta,
            **OVERLAPPED,
        )
    return out


def _check(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    num_heads, head_dim = q.shape[1:]
    block_size, num_kv_heads = k_cache.shape[1:3]
    group = num_heads // num_kv_heads
    assert group * num_kv_heads == num_heads, f"{num_heads} query heads do not divide by {num_kv_heads} kv heads"
    assert group <= ROWS, f"{group} query heads to a kv head, at most {ROWS}"
    assert head_dim in (64, 128, 256), f"head_dim={head_dim} is not 64, 128 or 256"
    assert block_size >= 8 and block_size & (block_size - 1) == 0, f"block_size={block_size} is not a power of two >= 8"
    assert k_cache.is_contiguous() and v_cache.is_contiguous(), "the caches are contiguous"
    assert q.stride(2) == 1 and q.stride(0) % 8 == q.stride(1) % 8 == 0, f"q has strides {q.stride()}"
    assert q.dtype == k_cache.dtype == v_cache.dtype and q.element_size() == 2, f"q is {q.dtype}"


def _attend(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    plan: AttentionPlan,
    work: Work,
    out: Tensor,
    acc: Tensor,
    state: Tensor,
    scale: float,
    kv_start: int,
    window: int | None,
    sinks: Tensor | None,
) -> None:
    num_heads, head_dim = q.shape[1:]
    num_blocks, block_size, num_kv_heads, _ = k_cache.shape
    group = num_heads // num_kv_heads
    padded = triton.next_power_of_2(group)
    row_blocks = work.tiles.row_blocks
    slots = [num_blocks * block_size, num_kv_heads, head_dim]
    page = [min(block_size, LANES), 1, _HALF]
    attention_kernel[(num_sms(q.device),)](
        _descriptor(q, list(q.shape), [*q.stride()], [ROWS // padded, padded, _HALF]),
        _descriptor(k_cache, slots, [*k_cache.stride()[1:]], page),
        _descriptor(v_cache, slots, [*v_cache.stride()[1:]], page),
        work.items,
        work.num_items,
        plan.block_tables,
        plan.kv_lengths,
        out,
        acc,
        state,
        q if sinks is None else sinks,
        scale * math.log2(math.e),
        kv_start,
        window or 0,
        out.stride(0),
        plan.block_tables.stride(0),
        plan.block_tables.shape[1],
        work.max_pieces,
        BLOCK_SIZE=block_size,
        KV_HEADS=num_kv_heads,
        GROUP=group,
        GROUP_PAD=padded,
        D=head_dim,
        STAGES=_STAGES[head_dim, row_blocks],
        ROW_BLOCKS=row_blocks,
        COLUMN_BLOCKS=2 if head_dim == 256 else 1,
        HAS_WINDOW=window is not None,
        HAS_SINKS=sinks is not None,
        num_warps=4,
        maxnreg=152 if row_blocks == 1 and head_dim < 256 else None,
        **OVERLAPPED,
    )


def _descriptor(tensor: Tensor, shape: list[int], strides: list[int], box: list[int]) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    return TensorDescriptor(tensor, shape, strides, box, layout)
