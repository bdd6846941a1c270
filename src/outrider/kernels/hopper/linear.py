"""y = x Wᵀ + b on a GPU, with the same bits for a row in every batch.

One warp fills a ring of tiles through TMA, one or two warpgroups multiply them; weights take the M dimension of
wgmma, tokens its N dimension. A dot product is a chain of wgmmas over K in ascending order, so a row has the same bits
in every tile. Where a layer has too few weight tiles to fill the GPU, K is cut into two segments, each is summed
separately, and the two sums are added. Whether it is cut depends on the layer's shape only; tiles may depend
on the number of tokens.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma, warpgroup_mma_wait

from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.hopper.tma import descriptor, is_aligned, load_tile
from outrider.kernels.triton.launch import OVERLAPPED, counters, empty_rows, num_sms
from outrider.kernels.triton.linear import SEGMENT_UNIT, empty_weight, linear_by, num_segments

__all__ = ["empty_weight", "linear", "linear_compilations"]

WEIGHT_ROWS = 64
"""Rows of W that one warpgroup multiplies: the M of wgmma."""

_TOKEN_TILES = 8
"""Token tiles that share weights while the weights are in L2."""


class Tile(NamedTuple):
    """Tuning of a CTA; none of it can change a bit of the result."""

    tokens: int  # the N of wgmma
    warpgroups: int  # each with its own 64 rows of W
    block_k: int
    stages: int  # tiles in flight: about 200 KB of shared memory, one CTA to an SM
    cost: int  # nanoseconds for 64 of K when every SM has one


# benchmarks/log.md, entries 1 and 3. Up to 64 tokens the bytes of W set the time, and any tile that holds all tokens
# is as fast; rings of 200 KB were faster than two CTAs with 100 KB on an SM.
_SMALL = {16: Tile(16, 1, 128, 10, 0), 32: Tile(32, 1, 128, 9, 0), 64: Tile(64, 1, 128, 6, 160)}
_LARGE = (_SMALL[64], Tile(128, 1, 64, 8, 265), Tile(128, 2, 64, 6, 400), Tile(256, 2, 64, 4, 770))


class Work(NamedTuple):
    """A tile, and the number of CTAs over which the segments of K are spread: `across`, 1 for all in one."""

    tile: Tile
    across: int


def choose_work(
    num_tokens: int, output_size: int, input_size: int, *, num_ctas: int, segments: int | None = None
) -> Work:
    """The fastest work by whole waves of CTAs; may be tuned freely. segments: those of the whole layer, for a shard."""
    segments = segments or num_segments(output_size, input_size)
    for tokens, tile in _SMALL.items():
        if num_tokens <= tokens:
            return Work(tile, segments)

    def nanoseconds(work: Work) -> int:
        tile, across = work
        tiles = triton.cdiv(num_tokens, tile.tokens) * triton.cdiv(output_size, WEIGHT_ROWS * tile.warpgroups)
        waves = triton.cdiv(tiles * across, num_ctas)
        merging = 3500 + 16 * tile.tokens if across > 1 else 11000 if segments > 1 and tile.tokens > 128 else 0
        return waves * (triton.cdiv(input_size, 64 * across) * tile.cost + merging)

    # a loop over segments in one CTA, which keeps the first sum in registers or, for the largest tile, in memory
    works = [Work(tile, across) for across in sorted({1, segments}) for tile in _LARGE]
    return min(works, key=nanoseconds)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out_dtype: torch.dtype | None = None,
    whole_shape: tuple[int, int] | None = None,
) -> Tensor:
    """x [M, K], weight [N, K], bias [N], one dtype -> [M, N], rounded once, to `out_dtype` or the dtype of x.

    The sum is kept in fp32, and the bias is added to it. Rows of the result may be padded in memory.
    whole_shape: (N, K) of the whole layer, if `weight` is a shard of its rows; it decides how many segments K has.
    """
    return linear_by(_fill, x, weight, bias, out_dtype=out_dtype, whole_shape=whole_shape)


def _fill(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, *, segments: int) -> None:
    work = choose_work(x.shape[0], *weight.shape, num_ctas=num_sms(x.device), segments=segments)
    _run(x, weight, bias, y, work, segments=segments)


def linear_compilations(dtype: torch.dtype, device: torch.device) -> Sequence[Callable[[], object]]:
    """One for each work and dtype of y, without a bias. The last layer alone has fp32 results, of one segment."""
    if dtype == torch.float32:
        return ()
    tiles = [*_SMALL.values(), *_LARGE[1:]]
    works = [(Work(tile, across), segments) for tile in tiles for across, segments in ((1, 1), (1, 2), (2, 2))]
    works = [(work, segments) for work, segments in works if work.tile.tokens >= 64 or work.across == segments]
    forms = [(*work, dtype) for work in works] + [(Work(tile, 1), 1, torch.float32) for tile in tiles]

    def compile_one(work: Work, segments: int, out_dtype: torch.dtype) -> None:
        x = torch.empty(work.tile.tokens, 2 * SEGMENT_UNIT, dtype=dtype, device=device)
        weight = empty_weight(WEIGHT_ROWS * work.tile.warpgroups, 2 * SEGMENT_UNIT, dtype=dtype, device=device)
        y = torch.empty(x.shape[0], weight.shape[0], dtype=out_dtype, device=device)
        _run(x, weight, None, y, work, segments=segments, only_compile=True)

    return [partial(compile_one, *form) for form in forms]


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    work: Work,
    *,
    segments: int,
    only_compile: bool = False,
) -> None:
    num_tokens, input_size = x.shape
    output_size = weight.shape[0]
    assert is_aligned(weight), "rows of a weight must start at multiples of 16 bytes; make it with empty_weight"
    if not is_aligned(x):
        aligned = empty_rows(num_tokens, triton.cdiv(input_size, 8) * 8, dtype=x.dtype, device=x.device)
        x = aligned[:, :input_size].copy_(x)

    tile, across = work
    inside = segments // across
    token_tiles = triton.cdiv(num_tokens, tile.tokens)
    weight_tiles = triton.cdiv(output_size, WEIGHT_ROWS * tile.warpgroups)
    grid = min(num_sms(x.device), token_tiles * weight_tiles * across)

    sums, count = y, y
    if segments > 1:
        num_sums = (token_tiles * weight_tiles * across if across > 1 else grid) * tile.warpgroups
        sums = torch.empty(num_sums, WEIGHT_ROWS, tile.tokens, dtype=torch.float32, device=x.device)
    if across > 1:
        count = counters(x.device, token_tiles * weight_tiles * tile.warpgroups)
    segment = triton.cdiv(input_size, segments * SEGMENT_UNIT) * SEGMENT_UNIT
    kernel: Any = partial(_linear_kernel.warmup, grid=(grid,)) if only_compile else _linear_kernel[(grid,)]
    kernel(
        descriptor(x, tile.tokens, tile.block_k, num_rows=_rows_at_hand(x, token_tiles * tile.tokens)),
        descriptor(weight, WEIGHT_ROWS, tile.block_k, num_rows=output_size),
        y,
        y if bias is None else bias,
        sums,
        count,
        num_tokens,
        output_size,
        y.shape[1] // 8,
        token_tiles,
        weight_tiles,
        triton.cdiv(input_size, tile.block_k),
        segment // tile.block_k,
        ACROSS=across,
        INSIDE=inside,
        STAGES=tile.stages,
        WARPGROUPS=tile.warpgroups,
        TOKEN_TILES=_TOKEN_TILES,
        HAS_BIAS=bias is not None,
        num_warps=4,
        **OVERLAPPED,
    )


def _rows_at_hand(x: Tensor, wanted: int) -> int:
    """`wanted` rows if the memory of x extends that far, with any contents; otherwise the rows of x.

    Each row is multiplied alone, so rows after the last of x cannot change it, and their results are not stored.
    """
    last = x.storage_offset() + (wanted - 1) * x.stride(0) + x.shape[1]
    return wanted if last * x.element_size() <= x.untyped_storage().nbytes() else x.shape[0]


@gluon.constexpr_function
def _sum_layout(tokens):
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, tokens, 16])


@gluon.constexpr_function
def _out_layout(tokens, bits):
    """Each thread has 16 bytes of an output row; every element stays in the warp that has its sum."""
    rows = [[1, 0], [2, 0], [4, 0], [8, 0]]
    columns = [[0, 1 << i] for i in range((tokens - 1).bit_length())]
    width = 3 if bits == 16 else 2
    lanes = rows[width:] + columns[: 1 + width]
    return gl.DistributedLinearLayout(rows[:width] + columns[1 + width :], lanes, [[16, 0], [32, 0]], [], [64, tokens])


@gluon.jit
def _place(i_tile, token_tiles, weight_tiles, TOKEN_TILES: gl.constexpr):
    """Token tile and weight tile of an item: token tiles are grouped, and vary fastest within a group."""
    i_first = i_tile // (TOKEN_TILES * weight_tiles) * TOKEN_TILES
    size = gl.minimum(token_tiles - i_first, TOKEN_TILES)
    rest = i_tile - i_first * weight_tiles
    return i_first + rest % size, rest // size


@gluon.jit
def _load(
    x_desc,
    w_desc,
    ring,
    extent,
    ACROSS: gl.constexpr,
    INSIDE: gl.constexpr,
    WARPGROUPS: gl.constexpr,
    TOKEN_TILES: gl.constexpr,
):
    """Fill the ring (the producer: one warp)."""
    x_ring, w_ring, full, empty = ring
    token_tiles, weight_tiles, num_blocks, segment_blocks = extent
    STAGES: gl.constexpr = x_ring.shape[0]
    BLOCK_M: gl.constexpr = x_ring.shape[1]
    BLOCK_K: gl.constexpr = x_ring.shape[2]
    NUM_BYTES: gl.constexpr = (BLOCK_M + 64 * WARPGROUPS) * BLOCK_K * 2
    num_early = 0
    step = 0
    for item in range(gl.program_id(0), token_tiles * weight_tiles * ACROSS, gl.num_programs(0)):
        i_m, i_n = _place(item // ACROSS, token_tiles, weight_tiles, TOKEN_TILES)
        k_begin = (item % ACROSS) * (segment_blocks * INSIDE)
        k_end = gl.minimum(k_begin + segment_blocks * INSIDE, num_blocks)
        if step == 0:
            # weights do not depend on the previous kernel, so they are loaded while it still runs
            num_early = gl.minimum(k_end - k_begin, STAGES)
            for k in range(num_early):
                mbarrier.expect(full.index(k), NUM_BYTES)
                for i in gl.static_range(WARPGROUPS):
                    b_w = w_ring.index(k * WARPGROUPS + i)
                    load_tile(w_desc, [(i_n * WARPGROUPS + i) * 64, (k_begin + k) * BLOCK_K], full.index(k), b_w)
            wait()
        for k in range(k_begin, k_end):
            stage = step % STAGES
            is_late = step >= num_early
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), NUM_BYTES, pred=is_late)
            load_tile(x_desc, [i_m * BLOCK_M, k * BLOCK_K], full.index(stage), x_ring.index(stage))
            for i in gl.static_range(WARPGROUPS):
                b_w = w_ring.index(stage * WARPGROUPS + i)
                load_tile(w_desc, [(i_n * WARPGROUPS + i) * 64, k * BLOCK_K], full.index(stage), b_w, pred=is_late)
            step += 1


@gluon.jit
def _store(total, p_y, p_bias, i_m, i_n, M, N, pitch, HAS_BIAS: gl.constexpr):
    """Store total [64, BLOCK_M] fp32 to y, whose rows are 8 × pitch elements apart."""
    BLOCK_M: gl.constexpr = total.shape[1]
    OUT: gl.constexpr = _out_layout(BLOCK_M, p_y.dtype.element_ty.primitive_bitwidth)
    if HAS_BIAS:
        o_bias = i_n * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, total.type.layout))
        total += gl.load(p_bias + o_bias, mask=o_bias < N, other=0.0).to(gl.float32)[:, None]
    b_out = gl.convert_layout(total.to(p_y.dtype.element_ty), OUT)
    o_n = i_n * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, OUT))
    o_m = i_m * BLOCK_M + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, OUT))
    p_out = p_y + (o_m.to(gl.int64) * pitch * 8)[None, :] + o_n[:, None]
    gl.store(p_out, b_out, mask=(o_m < M)[None, :] & (o_n < pitch * 8)[:, None])


@gluon.jit
def _multiply(
    I_WARPGROUP: gl.constexpr,
    ring,
    pointers,
    shape,
    extent,
    ACROSS: gl.constexpr,
    INSIDE: gl.constexpr,
    WARPGROUPS: gl.constexpr,
    TOKEN_TILES: gl.constexpr,
    HAS_BIAS: gl.constexpr,
):
    """Multiply (a consumer: one warpgroup with 64 rows of W)."""
    x_ring, w_ring, full, empty = ring
    p_y, p_bias, p_partial, p_count = pointers
    M, N, pitch = shape
    token_tiles, weight_tiles, num_blocks, segment_blocks = extent
    STAGES: gl.constexpr = x_ring.shape[0]
    BLOCK_M: gl.constexpr = x_ring.shape[1]
    SUM: gl.constexpr = _sum_layout(BLOCK_M)
    SIZE: gl.constexpr = 64 * BLOCK_M
    o_row = gl.arange(0, 64, layout=gl.SliceLayout(1, SUM))
    o_column = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, SUM))
    o_sum = o_row[:, None] * BLOCK_M + o_column[None, :]
    step = 0
    wait()
    for item in range(gl.program_id(0), token_tiles * weight_tiles * ACROSS, gl.num_programs(0)):
        i_part = item % ACROSS
        total = gl.zeros([64, BLOCK_M], gl.float32, SUM)
        for j in range(INSIDE):
            k_begin = (i_part + j) * segment_blocks
            k_end = gl.minimum(k_begin + segment_blocks, num_blocks)
            acc = gl.zeros([64, BLOCK_M], gl.float32, SUM)
            for k in range(k_begin, k_end):
                stage = step % STAGES
                mbarrier.wait(full.index(stage), (step // STAGES) & 1)
                b_w = w_ring.index(stage * WARPGROUPS + I_WARPGROUP)
                b_x = x_ring.index(stage).permute((1, 0))
                acc = warpgroup_mma(b_w, b_x, acc, use_acc=k > k_begin, is_async=True)
                acc = warpgroup_mma_wait(1, deps=(acc,))
                mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES), pred=k > k_begin)
                step += 1
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES))
            if INSIDE > 1 and BLOCK_M <= 128:
                if j > 0:
                    acc = total + acc
            elif INSIDE > 1:
                # two sums do not fit in registers
                p_own = p_partial + ((gl.program_id(0) * WARPGROUPS + I_WARPGROUP) * SIZE).to(gl.int64) + o_sum
                if j > 0:
                    acc = gl.load(p_own) + acc
                if j < INSIDE - 1:
                    gl.store(p_own, acc)
            total = acc

        i_m, i_n = _place(item // ACROSS, token_tiles, weight_tiles, TOKEN_TILES)
        i_n = i_n * WARPGROUPS + I_WARPGROUP
        if ACROSS == 1:
            _store(total, p_y, p_bias, i_m, i_n, M, N, pitch, HAS_BIAS)
        else:
            # the last CTA to arrive adds the other's sum to its own; a + b = b + a
            i_slot = item // ACROSS * WARPGROUPS + I_WARPGROUP
            p_slot = p_partial + (i_slot * (ACROSS * SIZE)).to(gl.int64) + o_sum
            num_done = gl.atomic_add(p_count + i_slot, 0, sem="acquire", scope="gpu")
            if num_done == 0:
                gl.store(p_slot + i_part * SIZE, total)
                gl.thread_barrier()
                num_done = gl.atomic_add(p_count + i_slot, 1, sem="acq_rel", scope="gpu")
            if num_done == 1:
                gl.store(p_count + i_slot, 0)
                total += gl.load(p_slot + (1 - i_part) * SIZE, cache_modifier=".cg")
                _store(total, p_y, p_bias, i_m, i_n, M, N, pitch, HAS_BIAS)


@gluon.jit(
    do_not_specialize=["M", "N", "pitch", "token_tiles", "weight_tiles", "num_blocks", "segment_blocks"],
)
def _linear_kernel(
    x_desc,  # [M, K]
    w_desc,  # [N, K]
    p_y,  # [M, 8 × pitch]
    p_bias,  # [N]
    p_partial,  # fp32, sums of segments
    p_count,  # int32, zero before and after
    M,
    N,
    pitch,
    token_tiles,
    weight_tiles,
    num_blocks,
    segment_blocks,
    ACROSS: gl.constexpr,
    INSIDE: gl.constexpr,
    STAGES: gl.constexpr,
    WARPGROUPS: gl.constexpr,
    TOKEN_TILES: gl.constexpr,
    HAS_BIAS: gl.constexpr,
):
    gl.static_assert(ACROSS <= 2, "the sum of two segments does not depend on their order; of three it does")
    BLOCK_M: gl.constexpr = x_desc.block_type.shape[0]
    BLOCK_K: gl.constexpr = x_desc.block_type.shape[1]
    x_ring = gl.allocate_shared_memory(x_desc.dtype, [STAGES, BLOCK_M, BLOCK_K], x_desc.layout)
    w_ring = gl.allocate_shared_memory(w_desc.dtype, [STAGES * WARPGROUPS, 64, BLOCK_K], w_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=WARPGROUPS)
    launch_dependents()
    ring = (x_ring, w_ring, full, empty)
    pointers = (p_y, p_bias, p_partial, p_count)
    shape = (M, N, pitch)
    extent = (token_tiles, weight_tiles, num_blocks, segment_blocks)
    if WARPGROUPS == 1:
        gl.warp_specialize(
            [
                (_multiply, (0, ring, pointers, shape, extent, ACROSS, INSIDE, WARPGROUPS, TOKEN_TILES, HAS_BIAS)),
                (_load, (x_desc, w_desc, ring, extent, ACROSS, INSIDE, WARPGROUPS, TOKEN_TILES)),
            ],
            [1],
            [40],
        )
    else:
        gl.warp_specialize(
            [
                (_multiply, (0, ring, pointers, shape, extent, ACROSS, INSIDE, WARPGROUPS, TOKEN_TILES, HAS_BIAS)),
                (_multiply, (1, ring, pointers, shape, extent, ACROSS, INSIDE, WARPGROUPS, TOKEN_TILES, HAS_BIAS)),
                (_load, (x_desc, w_desc, ring, extent, ACROSS, INSIDE, WARPGROUPS, TOKEN_TILES)),
            ],
            [4, 1],
            [232, 40],
        )
