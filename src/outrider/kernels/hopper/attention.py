"""Attention over the paged KV cache on Hopper: one arithmetic for prefill, decode and verify.

The plan and its work are those of `kernels/triton/attention.py`. `attention_tiles` computes the items of work, and
`attention_state` merges the parts of split work.
"""

import math

import triton
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from outrider.kernels.hopper.attention_state import combine_kernel
from outrider.kernels.hopper.attention_tiles import attention_kernel
from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.triton.attention import AttentionPlan as Plan
from outrider.kernels.triton.attention import Call, attended, check_rows
from outrider.kernels.triton.attention_plan import LANES, ROWS
from outrider.kernels.triton.launch import OVERLAPPED, num_sms

_STAGES = {(64, 1): 10, (64, 2): 8, (128, 1): 5, (128, 2): 4, (256, 1): 2}
"""KV tiles in flight by head dim and row blocks: as many as fit into 227 KB beside the queries."""

_HALF = 64


class AttentionPlan(Plan):
    """Rows and lengths of a step; two warpgroups share the KV of a tile where their sums fit into registers."""

    @staticmethod
    def tile_size(head_dim: int) -> dict[str, int]:
        """Rows of a block, and blocks of a tile at most."""
        return {"block_rows": ROWS, "max_row_blocks": 2 if head_dim <= 128 else 1}


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


def _attend(call: Call) -> None:
    q, plan = call.q, call.plan
    num_heads, head_dim = q.shape[1:]
    num_blocks, block_size, num_kv_heads, _ = call.k_cache.shape
    group = num_heads // num_kv_heads
    padded = triton.next_power_of_2(group)
    row_blocks = call.work.tiles.row_blocks
    slots = [num_blocks * block_size, num_kv_heads, head_dim]
    page = [min(block_size, LANES), 1, _HALF]
    attention_kernel[(num_sms(q.device),)](
        _descriptor(q, list(q.shape), [*q.stride()], [ROWS // padded, padded, _HALF]),
        _descriptor(call.k_cache, slots, [*call.k_cache.stride()[1:]], page),
        _descriptor(call.v_cache, slots, [*call.v_cache.stride()[1:]], page),
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
        call.out.stride(0),
        plan.block_tables.stride(0),
        plan.block_tables.shape[1],
        call.work.max_pieces,
        BLOCK_SIZE=block_size,
        KV_HEADS=num_kv_heads,
        GROUP=group,
        GROUP_PAD=padded,
        D=head_dim,
        STAGES=_STAGES[head_dim, row_blocks],
        ROW_BLOCKS=row_blocks,
        COLUMN_BLOCKS=2 if head_dim == 256 else 1,
        HAS_WINDOW=call.window is not None,
        HAS_SINKS=call.sinks is not None,
        num_warps=4,
        maxnreg=152 if row_blocks == 1 and head_dim < 256 else None,
        **OVERLAPPED,
    )


def _combine(call: Call, heads_to_cta: int) -> None:
    num_heads, head_dim = call.q.shape[1:]
    combine_kernel[(call.work.num_split_tokens, triton.cdiv(num_heads, heads_to_cta))](
        call.plan.kv_lengths,
        call.work.splits,
        call.acc,
        call.state,
        call.q if call.sinks is None else call.sinks,
        call.out,
        num_heads,
        call.out.stride(0),
        call.work.max_pieces,
        HEADS=heads_to_cta,
        D=head_dim,
        HAS_SINKS=call.sinks is not None,
        num_warps=heads_to_cta,
        **OVERLAPPED,
    )


def _descriptor(tensor: Tensor, shape: list[int], strides: list[int], box: list[int]) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    return TensorDescriptor(tensor, shape, strides, box, layout)
