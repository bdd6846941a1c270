"""y = x Wᵀ + b on any GPU, with the same bits for a row in every batch.

Weights take the M dimension of the tensor core's instruction, tokens its N dimension, so the instruction is the same
for every tile: a tile has 64 or 128 rows of W. A dot product is a chain over K in ascending order. Where a layer has
too few weight tiles to fill a GPU, K is cut into two segments, each is summed separately, and the two sums are added.
Whether it is cut depends on the layer's shape only; tiles may depend on the number of tokens and on the GPU.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import INSTRUCTION, OVERLAPPED, counters, num_sms, shared_bytes

SEGMENT_UNIT = 256
"""Segments of K begin at multiples of this, which every BLOCK_K divides."""

_PITCH = 64
"""Rows of a weight start at multiples of this many elements, so that 16 bytes are loaded at once."""

_TOKEN_TILES = 8
"""Token tiles that share weights while the weights are in L2."""

_MUCH_SHARED = 200 << 10
"""Bytes of shared memory of GPUs whose tensor cores read both operands from it; others run out of registers with the
largest tile."""

_MAX_STAGES = 5


class Tile(NamedTuple):
    """Tuning of a program; none of it can change a bit of the result."""

    rows: int  # of W
    tokens: int
    block_k: int
    warps: int

    @property
    def stage_bytes(self) -> int:
        """Shared memory of one tile of W and one of x, of 16-bit elements."""
        return (self.rows + self.tokens) * self.block_k * 2


_SMALL = {16: Tile(64, 16, 128, 4), 32: Tile(64, 32, 128, 4), 64: Tile(64, 64, 64, 4)}
_LARGE = (_SMALL[64], Tile(64, 128, 64, 4), Tile(128, 128, 64, 8), Tile(128, 256, 64, 8))
_TILE_OVERHEAD = 64 * 64
"""Time of a tile that does not depend on its size, in products of one K."""


class Work(NamedTuple):
    """A tile, and the number of programs over which the segments of K are spread: `across`, 1 for all in one."""

    tile: Tile
    across: int


def num_segments(output_size: int, input_size: int) -> int:
    """Segments that K is cut into: part of the arithmetic, so never tuned.

    output_size and input_size are those of the whole layer, not of a shard of it.
    """
    return 2 if input_size >= 2 * output_size and input_size >= 2048 else 1


def choose_work(
    num_tokens: int,
    output_size: int,
    input_size: int,
    *,
    num_ctas: int,
    shared: int = _MUCH_SHARED,
    segments: int | None = None,
) -> Work:
    """The fastest work by whole waves of programs; may be tuned freely.

    num_ctas: programs that run at once; shared: bytes of shared memory that one may have; segments: of the whole layer.
    """
    segments = segments or num_segments(output_size, input_size)
    for tokens, tile in _SMALL.items():
        if num_tokens <= tokens:
            return Work(tile, segments)

    def time(work: Work) -> int:
        tile, across = work
        tiles = triton.cdiv(num_tokens, tile.tokens) * triton.cdiv(output_size, tile.rows)
        waves = triton.cdiv(tiles * across, num_ctas)
        return waves * triton.cdiv(input_size, across) * (tile.rows * tile.tokens + _TILE_OVERHEAD)

    works = [Work(tile, across) for across in sorted({1, segments}) for tile in _large(shared)]
    return min((work for work in works if work.tile.tokens < 256 or work.across == segments), key=time)


def _large(shared: int) -> list[Tile]:
    """Tiles for many tokens."""
    return [tile for tile in _LARGE if tile.tokens < 256 or shared >= _MUCH_SHARED]


def empty_weight(output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty weight [output_size, input_size]; each row starts at an aligned address."""
    pitch = triton.cdiv(input_size, _PITCH) * _PITCH
    return torch.empty(output_size, pitch, dtype=dtype, device=device)[:, :input_size]


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


def linear_by(
    fill: Callable[..., None],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    out_dtype: torch.dtype | None,
    whole_shape: tuple[int, int] | None,
) -> Tensor:
    """`linear`, where fill(x, weight, bias, y, segments=…) computes y from 16-bit inputs."""
    num_tokens, input_size = x.shape
    output_size = weight.shape[0]
    assert weight.shape[1] == input_size, f"x {tuple(x.shape)} does not fit weight {tuple(weight.shape)}"
    assert x.dtype == weight.dtype, f"x is {x.dtype}, weight is {weight.dtype}"
    assert bias is None or (bias.shape == (output_size,) and bias.is_contiguous()), "bias is not [N]"
    padded = triton.cdiv(output_size, 8) * 8
    y = torch.empty(num_tokens, padded, dtype=out_dtype or x.dtype, device=x.device)
    if num_tokens > 0:
        if x.dtype == torch.float32:
            run_wide(x, weight, bias, y)
        else:
            fill(x, weight, bias, y, segments=num_segments(*(whole_shape or (output_size, input_size))))
    return y if padded == output_size else y[:, :output_size]


def _fill(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, *, segments: int) -> None:
    work = choose_work(
        x.shape[0],
        *weight.shape,
        num_ctas=num_sms(x.device),
        shared=shared_bytes(x.device),
        segments=segments,
    )
    _run(x, weight, bias, y, work, segments=segments)


def linear_compilations(dtype: torch.dtype, device: torch.device) -> Sequence[Callable[[], object]]:
    """One for each work and dtype of y, without a bias. The last layer alone has fp32 results, of one segment."""
    if dtype == torch.float32:
        return ()
    tiles = [*_SMALL.values(), *_large(shared_bytes(device))[1:]]
    works = [(Work(tile, across), segments) for tile in tiles for across, segments in ((1, 1), (1, 2), (2, 2))]
    works = [(work, segments) for work, segments in works if 64 <= work.tile.tokens < 256 or work.across == segments]
    forms = [(*work, dtype) for work in works] + [(Work(tile, 1), 1, torch.float32) for tile in tiles]

    def compile_one(work: Work, segments: int, out_dtype: torch.dtype) -> None:
        x = torch.empty(work.tile.tokens, 2 * SEGMENT_UNIT, dtype=dtype, device=device)
        weight = empty_weight(work.tile.rows, 2 * SEGMENT_UNIT, dtype=dtype, device=device)
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
    if x.stride(1) != 1:
        x = x.contiguous()
    assert weight.stride(1) == 1, "columns of a weight are contiguous"
    tile, across = work
    token_tiles, weight_tiles = triton.cdiv(num_tokens, tile.tokens), triton.cdiv(output_size, tile.rows)
    num_items = token_tiles * weight_tiles
    sums, count = y, y
    if across > 1:
        sums = torch.empty(num_items * across, tile.rows, tile.tokens, dtype=torch.float32, device=x.device)
        count = counters(x.device, num_items)
    grid = (num_items * across,)
    kernel: Any = partial(_linear_kernel.warmup, grid=grid) if only_compile else _linear_kernel[grid]
    kernel(
        x,
        weight,
        y,
        y if bias is None else bias,
        sums,
        count,
        num_tokens,
        output_size,
        input_size,
        x.stride(0),
        weight.stride(0),
        y.stride(0),
        token_tiles,
        weight_tiles,
        triton.cdiv(input_size, segments * SEGMENT_UNIT) * SEGMENT_UNIT,
        ACROSS=across,
        INSIDE=segments // across,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.block_k,
        TOKEN_TILES=_TOKEN_TILES,
        HAS_BIAS=bias is not None,
        num_warps=tile.warps,
        num_stages=max(2, min(_MAX_STAGES, shared_bytes(x.device) // tile.stage_bytes)),
        **INSTRUCTION,
        **OVERLAPPED,
    )


@triton.jit
def place_of(i_tile, token_tiles, weight_tiles, TOKEN_TILES: tl.constexpr):
    """Token tile and weight tile of an item: token tiles are grouped, and vary fastest within a group."""
    i_first = i_tile // (TOKEN_TILES * weight_tiles) * TOKEN_TILES
    size = tl.minimum(token_tiles - i_first, TOKEN_TILES)
    rest = i_tile - i_first * weight_tiles
    return i_first + rest % size, rest // size


@triton.jit
def dot_product(p_w, p_x, m_w, m_x, k_begin, k_end, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr):
    """[ROWS, TOKENS] fp32: the chain over K from k_begin to k_end. p_w [ROWS], p_x [TOKENS]: starts of rows."""
    o_k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([ROWS, TOKENS], tl.float32)
    for k in range(k_begin, k_end, BLOCK_K):
        m_k = k + o_k < k_end
        b_w = tl.load(p_w[:, None] + (k + o_k)[None, :], mask=m_w[:, None] & m_k[None, :], other=0.0)
        b_x = tl.load(p_x[None, :] + (k + o_k)[:, None], mask=m_x[None, :] & m_k[:, None], other=0.0)
        acc = tl.dot(b_w, b_x, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["M", "N", "token_tiles", "weight_tiles"])
def _linear_kernel(
    p_x,  # [M, K]
    p_w,  # [N, K]
    p_y,  # [M, N]
    p_bias,  # [N]
    p_sums,  # [items × ACROSS, ROWS, TOKENS] fp32, sums of segments
    p_count,  # int32, zero before and after
    M,
    N,
    K,
    x_stride,
    w_stride,
    y_stride,
    token_tiles,
    weight_tiles,
    segment,
    ACROSS: tl.constexpr,
    INSIDE: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    tl.static_assert(ACROSS * INSIDE <= 2, "the sum of two segments does not depend on their order; of three it does")
    launch_dependents()
    i_item = tl.program_id(0) // ACROSS
    i_part = tl.program_id(0) % ACROSS
    i_m, i_n = place_of(i_item, token_tiles, weight_tiles, TOKEN_TILES)
    o_m = i_m * TOKENS + tl.arange(0, TOKENS)
    o_n = i_n * ROWS + tl.arange(0, ROWS)
    m_m = o_m < M
    m_n = o_n < N
    p_rows = p_w + o_n.to(tl.int64) * w_stride
    p_tokens = p_x + o_m.to(tl.int64) * x_stride
    wait()
    k_begin = i_part * INSIDE * segment
    k_end = tl.minimum(k_begin + segment, K)
    total = dot_product(p_rows, p_tokens, m_n, m_m, k_begin, k_end, ROWS, TOKENS, BLOCK_K)
    if INSIDE == 2:
        total += dot_product(p_rows, p_tokens, m_n, m_m, k_end, K, ROWS, TOKENS, BLOCK_K)
    if ACROSS == 1:
        _store(total, p_y, p_bias, o_m, o_n, m_m, m_n, y_stride, HAS_BIAS)
    else:
        # the last program to arrive adds the other's sum to its own; a + b = b + a
        o_sum = tl.arange(0, ROWS)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]
        p_slot = p_sums + i_item.to(tl.int64) * (ACROSS * ROWS * TOKENS) + o_sum
        tl.store(p_slot + i_part * (ROWS * TOKENS), total)
        tl.debug_barrier()
        if tl.atomic_add(p_count + i_item, 1, sem="acq_rel", scope="gpu") == 1:
            tl.store(p_count + i_item, 0)
            total += tl.load(p_slot + (1 - i_part) * (ROWS * TOKENS), cache_modifier=".cg")
            _store(total, p_y, p_bias, o_m, o_n, m_m, m_n, y_stride, HAS_BIAS)


@triton.jit
def _store(total, p_y, p_bias, o_m, o_n, m_m, m_n, y_stride, HAS_BIAS: tl.constexpr):
    """Store total [ROWS, TOKENS] fp32 to rows of y."""
    if HAS_BIAS:
        total += tl.load(p_bias + o_n, mask=m_n, other=0.0).to(tl.float32)[:, None]
    p_out = p_y + o_m.to(tl.int64)[None, :] * y_stride + o_n[:, None]
    tl.store(p_out, total.to(p_y.dtype.element_ty), mask=m_m[None, :] & m_n[:, None])


def run_wide(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> None:
    """Multiply fp32 inputs in fp32 without tensor cores, with one fixed tile."""
    num_tokens, input_size = x.shape
    output_size = weight.shape[0]
    _wide_kernel[(triton.cdiv(num_tokens, 32), triton.cdiv(output_size, 32))](
        x,
        weight,
        y,
        y if bias is None else bias,
        num_tokens,
        output_size,
        input_size,
        x.stride(0),
        x.stride(1),
        weight.stride(0),
        weight.stride(1),
        y.stride(0),
        HAS_BIAS=bias is not None,
        BLOCK=32,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["M", "N", "K"])
def _wide_kernel(
    p_x,  # [M, K] fp32
    p_w,  # [N, K] fp32
    p_y,  # [M, N]
    p_bias,  # [N]
    M,
    N,
    K,
    x_stride,
    x_step,
    w_stride,
    w_step,
    y_stride,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    o_n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK, BLOCK], tl.float32)
    for k in range(0, K, BLOCK):
        o_k = k + tl.arange(0, BLOCK)
        m_x = (o_m < M)[:, None] & (o_k < K)[None, :]
        m_w = (o_n < N)[None, :] & (o_k < K)[:, None]
        b_x = tl.load(p_x + o_m.to(tl.int64)[:, None] * x_stride + o_k[None, :] * x_step, mask=m_x, other=0.0)
        b_w = tl.load(p_w + o_n.to(tl.int64)[None, :] * w_stride + o_k[:, None] * w_step, mask=m_w, other=0.0)
        acc = tl.dot(b_x, b_w, acc, input_precision="ieee")
    if HAS_BIAS:
        acc += tl.load(p_bias + o_n, mask=o_n < N, other=0.0)[None, :]
    m_y = (o_m < M)[:, None] & (o_n < N)[None, :]
    tl.store(p_y + o_m.to(tl.int64)[:, None] * y_stride + o_n[None, :], acc.to(p_y.dtype.element_ty), mask=m_y)
