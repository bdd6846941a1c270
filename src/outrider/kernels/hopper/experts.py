"""The experts of a mixture on a GPU: two GEMMs in one persistent kernel, the same bits for a token in every batch.

The design is that of `linear`, except that K is never cut: weights take the M dimension of wgmma, tokens its N
dimension, and a dot product is one chain of wgmmas over K in ascending order. Items of work are (record, weight tile):
first all of gate and up, then all of down. A CTA moves from gate and up to down without a pause, because it loads its
weights of down before the rows are ready. `routing` makes the records; only the device knows their number. CTAs wait
for each other, so each must have an SM: only one such kernel may run on a device at a time.

Rounding points are those of a dense MLP: gate and up to the model's dtype, silu(gate) from fp32 to that dtype, its
product with up, the row of down. The weighted sum over a token's experts is fp32, in the router's order, rounded once.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from outrider.kernels.hopper.expert_tiles import (
    BOX,
    columns,
    fence_proxies,
    gated,
    product,
)
from outrider.kernels.hopper.experts_single_token import experts_of_token
from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.hopper.tma import descriptor, is_aligned, load_tile, reinterpret
from outrider.kernels.triton.experts import empty_expert_weights
from outrider.kernels.triton.launch import OVERLAPPED, counters, num_sms
from outrider.kernels.triton.routing import BLOCK as TOKENS
from outrider.kernels.triton.routing import (
    RECORD_EXPERT,
    RECORD_FIRST_ROW,
    RECORD_NUM_ROWS,
    RECORD_WIDTH,
    Routing,
    combine,
    gather,
    route,
)

__all__ = ["empty_expert_weights", "experts", "route"]

BLOCK = gl.constexpr(TOKENS)
"""Largest number of tokens that need no gathering."""


class Tile(NamedTuple):
    """Tuning of a CTA; none of it can change a bit of the result."""

    block_k: int
    stages: int  # tiles in flight: 160 to 200 KB of shared memory, one CTA to an SM


# benchmarks/log.md, entry 7: with six stages in the smallest tile, one token took 1 µs longer
_TILES = {16: Tile(128, 5), 32: Tile(128, 5), 64: Tile(128, 4), 128: Tile(64, 5)}
"""(BLOCK_K, stages), by the number of rows of a record."""


def experts(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing) -> Tensor:
    """x [T, H], gate_up [E, 2I, H] with gate rows first, down [E, H, I], one 16-bit dtype -> [T, H].

    Each token is the weighted sum of its experts' gated MLPs. Experts have no capacity limit, and no token is dropped.
    """
    num_tokens, hidden_size = x.shape
    num_experts, width = down.shape[0], down.shape[2]
    assert gate_up.shape == (num_experts, 2 * width, hidden_size), f"gate_up is {tuple(gate_up.shape)}"
    assert down.shape[1] == hidden_size, f"down {tuple(down.shape)} does not fit x {tuple(x.shape)}"
    assert routing.ids.shape[0] == num_tokens, f"{num_tokens} tokens, routing of {routing.ids.shape[0]}"
    assert routing.bases.shape[1] == num_experts, f"{num_experts} experts, routing of {routing.bases.shape[1]}"
    assert x.dtype == gate_up.dtype == down.dtype and x.dtype.itemsize == 2, f"experts take 16-bit, not {x.dtype}"
    assert hidden_size % 8 == 0 and width % 8 == 0, f"TMA reads rows of 16 bytes, not {hidden_size} and {width}"
    if num_tokens == 0:
        return x.new_empty(0, hidden_size)

    if routing.is_gathered:
        x = gather(x, routing)
    elif not is_aligned(x):
        x = x.clone(memory_format=torch.contiguous_format)
    if routing.is_lone:
        return experts_of_token(x, _flat(gate_up), _flat(down), routing.ids, routing.weights)
    block_k, stages = _TILES[routing.tile]
    inner = torch.empty(routing.num_rows, width, dtype=x.dtype, device=x.device)
    top_k = routing.ids.shape[1]
    y = torch.empty(num_tokens * top_k, hidden_size, dtype=x.dtype, device=x.device)
    out = y if routing.is_gathered else torch.empty(num_tokens, hidden_size, dtype=x.dtype, device=x.device)
    gate_tiles, down_tiles = triton.cdiv(width, 64), triton.cdiv(hidden_size, 128)
    bound = routing.records.shape[0]
    _experts_kernel[(min(num_sms(x.device), bound * (gate_tiles + down_tiles)),)](
        descriptor(x, routing.tile, block_k),
        descriptor(_flat(gate_up), 64, 64),
        descriptor(inner, routing.tile, block_k),
        descriptor(_flat(down), 64, 64),
        inner,
        y,
        out,
        routing.weights,
        routing.slots,
        routing.records,
        routing.num_records,
        counters(x.device, bound + down_tiles),
        num_tokens,
        bound,
        hidden_size // 8,
        width // 8,
        gate_tiles,
        down_tiles,
        triton.cdiv(hidden_size, block_k),
        triton.cdiv(width, block_k),
        STAGES=stages,
        K=top_k,
        IS_GATHERED=routing.is_gathered,
        num_warps=8,
        **OVERLAPPED,
    )
    return combine(y, routing, num_tokens=num_tokens) if routing.is_gathered else out


def _flat(weights: Tensor) -> Tensor:
    """[E, N, K] -> [E × N, K]."""
    num_experts, output_size, input_size = weights.shape
    matrix = weights.as_strided((num_experts * output_size, input_size), (weights.stride(1), weights.stride(2)))
    is_even = weights.stride(0) == output_size * weights.stride(1)
    assert is_even and is_aligned(matrix), "TMA cannot read these weights; make them with empty_expert_weights"
    return matrix


@gluon.constexpr_function
def _out_layout(tokens):
    """Layout of [128, tokens]: each thread has 16 bytes of a row."""
    registers = [[1, 0], [2, 0], [4, 0]] + [[0, c] for c in columns(tokens)[4:]]
    lanes = [[8, 0], [16, 0], [32, 0], [64, 0], [0, 1]]
    return gl.DistributedLinearLayout(registers, lanes, [[0, 2], [0, 4], [0, 8]], [], [128, tokens])


@gluon.jit
def _load_weights(w_desc, boxes, full, stage, i_row, part_rows, i_k, is_needed):
    """Load two boxes of rows, `part_rows` apart, of one BLOCK_K."""
    HALVES: gl.constexpr = boxes.shape[0] // full.shape[0] // 2
    for i in gl.static_range(HALVES):
        for j in gl.static_range(2):
            box = boxes.index((stage * HALVES + i) * 2 + j)
            load_tile(w_desc, [i_row + j * part_rows, i_k + i * BOX], full.index(stage), box, pred=is_needed)


@gluon.jit
def _load(descriptors, ring, work, extent, IS_GATHERED: gl.constexpr):
    """Fill the ring (the producer: one warp)."""
    x_desc, gate_up_desc, inner_desc, down_desc = descriptors
    x_ring, _, boxes, full, empty = ring
    p_records, p_num_records, p_ready = work
    H, W, gate_tiles, down_tiles, hidden_blocks, width_blocks = extent
    STAGES: gl.constexpr = x_ring.shape[0]
    TILE: gl.constexpr = x_ring.shape[1]
    BLOCK_K: gl.constexpr = x_ring.shape[2]
    NUM_BYTES: gl.constexpr = (TILE + 2 * BOX) * BLOCK_K * 2
    wait()
    num_records = gl.load(p_num_records)
    num_ctas = gl.num_programs(0)
    step = 0
    for item in range(gl.program_id(0), num_records * gate_tiles, num_ctas):
        p_record = p_records + item // gate_tiles * RECORD_WIDTH
        i_row = gl.load(p_record + RECORD_EXPERT) * (2 * W) + item % gate_tiles * BOX
        i_x = 0
        if IS_GATHERED:
            i_x = gl.load(p_record + RECORD_FIRST_ROW)
        for k in range(hidden_blocks):
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), NUM_BYTES)
            load_tile(x_desc, [i_x, k * BLOCK_K], full.index(stage), x_ring.index(stage))
            _load_weights(gate_up_desc, boxes, full, stage, i_row, W, k * BLOCK_K, True)
            step += 1

    first = (gl.program_id(0) + num_ctas - num_records * gate_tiles % num_ctas) % num_ctas
    for item in range(first, num_records * down_tiles, num_ctas):
        i_record = item // down_tiles
        p_record = p_records + i_record * RECORD_WIDTH
        i_row = gl.load(p_record + RECORD_EXPERT) * H + item % down_tiles * (2 * BOX)
        i_x = gl.load(p_record + RECORD_FIRST_ROW)
        # the weights of the first item are loaded before the rows that they multiply are ready
        num_early = 0
        if item == first:
            num_early = gl.minimum(width_blocks, STAGES)
        for k in range(num_early):
            stage = (step + k) % STAGES
            mbarrier.wait(empty.index(stage), (((step + k) // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), NUM_BYTES)
            _load_weights(down_desc, boxes, full, stage, i_row, BOX, k * BLOCK_K, True)
        num_ready = gl.atomic_add(p_ready + i_record, 0, sem="acquire", scope="gpu")
        while num_ready < gate_tiles:
            num_ready = gl.atomic_add(p_ready + i_record, 0, sem="acquire", scope="gpu")
        fence_proxies()
        for k in range(width_blocks):
            stage = step % STAGES
            is_late = k >= num_early
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), NUM_BYTES, pred=is_late)
            load_tile(inner_desc, [i_x, k * BLOCK_K], full.index(stage), x_ring.index(stage))
            _load_weights(down_desc, boxes, full, stage, i_row, BOX, k * BLOCK_K, is_late)
            step += 1
        # the last CTA that waited resets the counter to zero
        if gl.atomic_add(p_ready + i_record, 1, sem="relaxed", scope="gpu") == gate_tiles + down_tiles - 1:
            gl.store(p_ready + i_record, 0)


@gluon.jit
def _multiply(
    ring,
    p_inner,
    sums,
    work,
    extent,
    K: gl.constexpr,
    IS_GATHERED: gl.constexpr,
):
    """Multiply (the consumers: two warpgroups, each with 64 rows of weights; gate and up, or two parts of down)."""
    p_records, p_num_records, p_ready = work
    p_y, _, _, p_slots, _, bound = sums
    H, W, gate_tiles, down_tiles, hidden_blocks, width_blocks = extent
    TILE: gl.constexpr = ring[0].shape[1]
    dtype: gl.constexpr = p_y.dtype.element_ty
    OUT: gl.constexpr = _out_layout(TILE)
    wait()
    num_records = gl.load(p_num_records)
    num_ctas = gl.num_programs(0)
    step = 0
    for item in range(gl.program_id(0), num_records * gate_tiles, num_ctas):
        i_record = item // gate_tiles
        p_record = p_records + i_record * RECORD_WIDTH
        first_row, num_rows = gl.load(p_record + RECORD_FIRST_ROW), gl.load(p_record + RECORD_NUM_ROWS)
        acc = product(ring, step, hidden_blocks)
        step += hidden_blocks
        b_inner = gated(acc, dtype)
        INNER: gl.constexpr = b_inner.type.layout

        o_column = item % gate_tiles * BOX + gl.arange(0, BOX, layout=gl.SliceLayout(1, INNER))
        o_row = gl.arange(0, TILE, layout=gl.SliceLayout(0, INNER))
        m = (o_row < num_rows)[None, :] & (o_column < W)[:, None]
        o = (first_row + o_row).to(gl.int64) * W
        gl.store(p_inner + o[None, :] + o_column[:, None], b_inner, mask=m)
        fence_proxies()
        gl.thread_barrier()
        gl.atomic_add(p_ready + i_record, 1, sem="release", scope="gpu")

    first = (gl.program_id(0) + num_ctas - num_records * gate_tiles % num_ctas) % num_ctas
    for item in range(first, num_records * down_tiles, num_ctas):
        i_record = item // down_tiles
        p_record = p_records + i_record * RECORD_WIDTH
        o_row = gl.arange(0, TILE, layout=gl.SliceLayout(0, OUT))
        if IS_GATHERED:
            m_row = o_row < gl.load(p_record + RECORD_NUM_ROWS)
            i_row = gl.load(p_record + RECORD_FIRST_ROW) + o_row
        else:
            b_slot = gl.load(p_slots + i_record * BLOCK + o_row, mask=o_row < BLOCK, other=-1)
            m_row = b_slot >= 0
            i_row = o_row * K + b_slot
        acc = product(ring, step, width_blocks)
        step += width_blocks
        b_y = gl.convert_layout(acc.to(dtype), OUT)
        o_column = item % down_tiles * (2 * BOX) + gl.arange(0, 2 * BOX, layout=gl.SliceLayout(1, OUT))
        m = m_row[None, :] & (o_column < H)[:, None]
        gl.store(p_y + (i_row.to(gl.int64) * H)[None, :] + o_column[:, None], b_y, mask=m)
        if not IS_GATHERED:
            gl.thread_barrier()
            p_done = p_ready + bound + item % down_tiles
            if gl.atomic_add(p_done, 1, sem="acq_rel", scope="gpu") == num_records - 1:
                gl.store(p_done, 0)
                _combine(sums, item % down_tiles, H, K)


@gluon.jit
def _combine(sums, i_tile, H, K: gl.constexpr):
    """Add the slots of all tokens in order, one token per warp; the last CTA of a tile of down does it."""
    p_y, p_out, p_weights, _, num_tokens, _ = sums
    SUM: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [8, 1], [1, 0])
    o_token = gl.arange(0, BLOCK, layout=gl.SliceLayout(1, SUM))
    o_column = i_tile * (2 * BOX) + gl.arange(0, 2 * BOX, layout=gl.SliceLayout(0, SUM))
    m_token = o_token < num_tokens
    m = m_token[:, None] & (o_column < H)[None, :]
    total = gl.zeros([BLOCK, 2 * BOX], gl.float32, SUM)
    for i in gl.static_range(K):
        i_pair = o_token * K + i
        p_row = p_y + (i_pair.to(gl.int64) * H)[:, None] + o_column[None, :]
        b_y = gl.load(p_row, mask=m, other=0.0, cache_modifier=".cg").to(gl.float32)
        b_weight = gl.load(p_weights + i_pair, mask=m_token, other=0.0)
        total = gl.fma(gl.zeros_like(total) + b_weight[:, None], b_y, total)
    p_row = p_out + (o_token.to(gl.int64) * H)[:, None] + o_column[None, :]
    gl.store(p_row, total.to(p_out.dtype.element_ty), mask=m)


@gluon.jit(
    do_not_specialize=[
        "num_tokens",
        "bound",
        "hidden_octets",
        "width_octets",
        "gate_tiles",
        "down_tiles",
        "hidden_blocks",
        "width_blocks",
    ],
)
def _experts_kernel(
    x_desc,  # [rows or T, H]
    gate_up_desc,  # [E × 2W, H]
    inner_desc,  # [rows, W]
    down_desc,  # [E × H, W]
    p_inner,  # [rows, W]
    p_y,  # [T × K, H], by row if gathered, else by token and slot
    p_out,  # [T, H], if not gathered
    p_weights,  # [T, K] fp32
    p_slots,  # [bound, BLOCK] int32, if not gathered
    p_records,  # [bound, RECORD_WIDTH] int32
    p_num_records,
    p_ready,  # int32, zero before and after: [bound] finished tiles of gate and up of a record, then tiles of down
    # that have read it; and, if not gathered, [down_tiles] finished records of a tile of down
    num_tokens,
    bound,
    hidden_octets,  # H = 8 × hidden_octets, which tells the compiler how wide it may store
    width_octets,
    gate_tiles,
    down_tiles,
    hidden_blocks,
    width_blocks,
    STAGES: gl.constexpr,
    K: gl.constexpr,
    IS_GATHERED: gl.constexpr,
):
    TILE: gl.constexpr = x_desc.block_type.shape[0]
    BLOCK_K: gl.constexpr = x_desc.block_type.shape[1]
    FLAT: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    dtype: gl.constexpr = x_desc.dtype
    x_ring = gl.allocate_shared_memory(dtype, [STAGES, TILE, BLOCK_K], FLAT)
    w_ring = gl.allocate_shared_memory(dtype, [STAGES, 2 * BOX, BLOCK_K], FLAT)
    # the same memory as TMA fills it: groups of 64 columns, each with two boxes of rows
    boxes = reinterpret(w_ring, dtype, [STAGES * (BLOCK_K // BOX) * 2, BOX, BOX], FLAT)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    launch_dependents()
    descriptors = (x_desc, gate_up_desc, inner_desc, down_desc)
    ring = (x_ring, w_ring, boxes, full, empty)
    work = (p_records, p_num_records, p_ready)
    sums = (p_y, p_out, p_weights, p_slots, num_tokens, bound)
    extent = (hidden_octets * 8, width_octets * 8, gate_tiles, down_tiles, hidden_blocks, width_blocks)
    gl.warp_specialize(
        [
            (_multiply, (ring, p_inner, sums, work, extent, K, IS_GATHERED)),
            (_load, (descriptors, ring, work, extent, IS_GATHERED)),
        ],
        [1],
        [40],
    )
