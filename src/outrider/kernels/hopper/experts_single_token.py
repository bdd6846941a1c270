"""The experts of one token: the same bits as in `experts`, in an order that keeps every SM busy all the time.

For one token, reading a layer's experts takes about 17 µs, so any time without reads matters. The number of pairs in a
tile of gate and up is chosen to spread the tiles evenly. A tile of down has rows of all the token's experts, and each
expert uses the column of wgmma of its slot; so a CTA has everything that the weighted sum of its rows needs, and no
kernel follows. All of a CTA's weights of down may be in flight before the first expert is ready.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier
from triton.language.core import extern, inline_asm_elementwise, int32

from outrider.kernels.hopper.expert_tiles import BOX, fence_proxies, gated, product
from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.hopper.tma import descriptor, load_tile, reinterpret
from outrider.kernels.triton.launch import OVERLAPPED, counters, num_sms

_COLUMNS = 16
"""The N of wgmma; the token is the first column for gate and up, one column for each slot for down."""

# benchmarks/log.md, "The experts of one token"
_BLOCK_K = 128
_STAGES = 6
_EARLY = 2
"""Stages of down in flight at once while gate and up are not finished everywhere."""


def choose_pairs(width: int, *, top_k: int, num_ctas: int) -> int:
    """Pairs of gate and up of a tile, by whole waves of CTAs; may be tuned freely."""
    return min((32, 48, 64), key=lambda pairs: triton.cdiv(top_k * triton.cdiv(width, pairs), num_ctas) * pairs)


def experts_of_token(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """x [1, H], gate_up [E × 2I, H], down [E × H, I] as TMA reads them, ids and weights [1, K] -> [1, H].

    K is at most 16: a tile of down has 128 rows, and a box of TMA at least 8.
    """
    hidden_size, width, top_k = x.shape[1], down.shape[1], ids.shape[1]
    num_ctas = num_sms(x.device)
    pairs = choose_pairs(width, top_k=top_k, num_ctas=num_ctas)
    slots = triton.next_power_of_2(top_k)
    rows = 2 * BOX.value // slots
    gate_tiles, down_tiles = triton.cdiv(width, pairs), triton.cdiv(hidden_size, rows)
    inner = torch.empty(_COLUMNS, width, dtype=x.dtype, device=x.device)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    gate_box = pairs & -pairs
    _token_kernel[(min(num_ctas, max(top_k * gate_tiles, down_tiles)),)](
        descriptor(x, _COLUMNS, _BLOCK_K),
        descriptor(gate_up, gate_box, BOX.value),
        descriptor(inner, _COLUMNS, _BLOCK_K),
        descriptor(down, rows, BOX.value),
        inner,
        out,
        ids,
        weights,
        counters(x.device, 1),
        hidden_size // 8,
        width // 8,
        gate_tiles,
        down_tiles,
        triton.cdiv(hidden_size, _BLOCK_K),
        triton.cdiv(width, _BLOCK_K),
        STAGES=_STAGES,
        EARLY=_EARLY,
        PAIRS=pairs,
        K=top_k,
        num_warps=8,
        **OVERLAPPED,
    )
    return out


@extern
def _load_acquire(pointer, _semantic=None):
    """Read an int32 that other CTAs change; their earlier writes may be read after it."""
    return inline_asm_elementwise(
        "ld.acquire.gpu.global.b32 $0, [$1];",
        "=r,l",
        [pointer],
        dtype=int32,
        is_pure=False,
        pack=1,
        _semantic=_semantic,
    )


@gluon.constexpr_function
def _slot_layout(slots):
    """Layout of [slots, rows]: each thread has all slots of a row."""
    return gl.BlockedLayout([slots, 1], [1, 32], [1, 8], [1, 0])


@gluon.jit
def _load_gate_up(w_desc, boxes, full, stage, i_gate, i_up, i_k, PAIRS: gl.constexpr):
    """The first PAIRS of the 64 rows that each half of a tile has."""
    ROWS: gl.constexpr = boxes.shape[1]
    PARTS: gl.constexpr = BOX // ROWS
    HALVES: gl.constexpr = boxes.shape[0] // full.shape[0] // (2 * PARTS)
    for i in gl.static_range(HALVES):
        for j in gl.static_range(PAIRS // ROWS):
            box = (stage * HALVES + i) * 2 * PARTS + j
            load_tile(w_desc, [i_gate + j * ROWS, i_k + i * BOX], full.index(stage), boxes.index(box))
            load_tile(w_desc, [i_up + j * ROWS, i_k + i * BOX], full.index(stage), boxes.index(box + PARTS))


@gluon.jit
def _load_down(w_desc, boxes, barrier, stage, firsts, i_k, BLOCK_K: gl.constexpr):
    """Rows of every slot's expert, which begin at `firsts`."""
    ROWS: gl.constexpr = boxes.shape[1]
    SLOTS: gl.constexpr = 2 * BOX // ROWS
    HALVES: gl.constexpr = BLOCK_K // BOX
    for i in gl.static_range(HALVES):
        for j in gl.static_range(len(firsts)):
            box = boxes.index((stage * HALVES + i) * SLOTS + j)
            load_tile(w_desc, [firsts[j], i_k + i * BOX], barrier, box)


@gluon.jit
def _firsts(p_ids, H, i_first, K: gl.constexpr):
    """Row `i_first` of each slot's expert."""
    firsts = ()
    for i in gl.static_range(K):
        # Triton cannot unpack a tuple in another
        firsts = firsts + (gl.load(p_ids + i) * H + i_first,)  # type: ignore[assignment]  # noqa: RUF005
    return firsts


@gluon.jit
def _load(
    descriptors,
    ring,
    landed,
    gate_boxes,
    p_ids,
    p_ready,
    extent,
    EARLY: gl.constexpr,
    PAIRS: gl.constexpr,
    K: gl.constexpr,
):
    """Fill the ring (the producer: one warp)."""
    x_desc, gate_up_desc, inner_desc, down_desc = descriptors
    x_ring, _, boxes, full, empty = ring
    H, W, gate_tiles, down_tiles, hidden_blocks, width_blocks = extent
    STAGES: gl.constexpr = x_ring.shape[0]
    COLUMNS: gl.constexpr = x_ring.shape[1]
    BLOCK_K: gl.constexpr = x_ring.shape[2]
    X_BYTES: gl.constexpr = COLUMNS * BLOCK_K * 2
    GATE_BYTES: gl.constexpr = X_BYTES + 2 * PAIRS * BLOCK_K * 2
    DOWN_BYTES: gl.constexpr = K * boxes.shape[1] * BLOCK_K * 2
    wait()
    num_ctas = gl.num_programs(0)
    num_gates = K * gate_tiles
    step = 0
    for item in range(gl.program_id(0), num_gates, num_ctas):
        i_gate = gl.load(p_ids + item // gate_tiles) * (2 * W) + item % gate_tiles * PAIRS
        for k in range(hidden_blocks):
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), GATE_BYTES)
            _load_gate_up(gate_up_desc, gate_boxes, full, stage, i_gate, i_gate + W, k * BLOCK_K, PAIRS)
            load_tile(x_desc, [0, k * BLOCK_K], full.index(stage), x_ring.index(stage))
            step += 1

    late_step = 0
    first = (gl.program_id(0) + num_ctas - num_gates % num_ctas) % num_ctas
    for tile in range(first, down_tiles, num_ctas):
        firsts = _firsts(p_ids, H, tile * boxes.shape[1], K)
        # the weights of the first tile are loaded before the rows that they multiply are ready
        num_early = 0
        if tile == first:
            num_early = gl.minimum(width_blocks, STAGES)
        for k in range(num_early):
            stage = (step + k) % STAGES
            mbarrier.wait(empty.index(stage), (((step + k) // STAGES) & 1) ^ 1)
            # more loads in flight would only delay the finished tiles of other CTAs and their counters
            mbarrier.wait(landed.index((k + STAGES - EARLY) % STAGES), 0, pred=k >= EARLY)
            mbarrier.expect(landed.index(k), DOWN_BYTES)
            _load_down(down_desc, boxes, landed.index(k), stage, firsts, k * BLOCK_K, BLOCK_K)
        if tile == first:
            while _load_acquire(p_ready.to(gl.int64)) < num_gates:
                pass
            fence_proxies()
        for k in range(num_early):
            stage = (step + k) % STAGES
            mbarrier.expect(full.index(stage), X_BYTES)
            load_tile(inner_desc, [0, k * BLOCK_K], full.index(stage), x_ring.index(stage))
        for k in range(num_early, width_blocks):
            stage = (step + k) % STAGES
            late_stage = (late_step + k) % STAGES
            mbarrier.wait(empty.index(stage), (((step + k) // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), X_BYTES)
            load_tile(inner_desc, [0, k * BLOCK_K], full.index(stage), x_ring.index(stage))
            mbarrier.expect(landed.index(late_stage), DOWN_BYTES)
            _load_down(down_desc, boxes, landed.index(late_stage), stage, firsts, k * BLOCK_K, BLOCK_K)
        step += width_blocks
        late_step += width_blocks
    # the last CTA that waited resets the counter to zero
    if first < down_tiles:
        num_waiting = gl.minimum(down_tiles, num_ctas)
        if gl.atomic_add(p_ready, 1, sem="relaxed", scope="gpu") == num_gates + num_waiting - 1:
            gl.store(p_ready, 0)


@gluon.jit
def _multiply(ring, landed, p_inner, p_out, p_weights, p_ready, extent, PAIRS: gl.constexpr, K: gl.constexpr):
    """Multiply (the consumers: two warpgroups, each with 64 rows of weights)."""
    H, W, gate_tiles, down_tiles, hidden_blocks, width_blocks = extent
    ROWS: gl.constexpr = ring[2].shape[1]
    SLOTS: gl.constexpr = 2 * BOX // ROWS
    SLOT: gl.constexpr = _slot_layout(SLOTS)
    dtype: gl.constexpr = p_out.dtype.element_ty
    wait()
    num_ctas = gl.num_programs(0)
    num_gates = K * gate_tiles
    step = 0
    for item in range(gl.program_id(0), num_gates, num_ctas):
        b_inner = gated(product(ring, step, hidden_blocks), dtype)
        step += hidden_blocks
        INNER: gl.constexpr = b_inner.type.layout
        o_pair = gl.arange(0, BOX, layout=gl.SliceLayout(1, INNER))
        o_column = item % gate_tiles * PAIRS + o_pair
        o_token = gl.arange(0, b_inner.shape[1], layout=gl.SliceLayout(0, INNER))
        m = ((o_pair < PAIRS) & (o_column < W))[:, None] & (o_token == 0)[None, :]
        p_column = p_inner + item // gate_tiles * W + o_column
        gl.store(p_column[:, None] + (o_token * 0)[None, :], b_inner, mask=m)
        fence_proxies()
        gl.thread_barrier()
        gl.atomic_add(p_ready, 1, sem="release", scope="gpu")

    late_step = 0
    o_slot = gl.arange(0, SLOTS, layout=gl.SliceLayout(1, SLOT))
    b_weight = gl.load(p_weights + o_slot, mask=o_slot < K, other=0.0)
    first = (gl.program_id(0) + num_ctas - num_gates % num_ctas) % num_ctas
    for tile in range(first, down_tiles, num_ctas):
        acc = product(ring, step, width_blocks, landed, late_step)
        step += width_blocks
        late_step += width_blocks
        SUM: gl.constexpr = acc.type.layout
        o_place = gl.arange(0, 2 * BOX, layout=gl.SliceLayout(1, SUM))
        o_column = gl.arange(0, acc.shape[1], layout=gl.SliceLayout(0, SUM))
        m_own = (o_place // ROWS)[:, None] == o_column[None, :]
        b_own = gl.sum(gl.where(m_own, acc, 0.0), axis=1).to(dtype)
        b_y = gl.convert_layout(b_own.reshape([SLOTS, ROWS]), SLOT).to(gl.float32)
        total = gl.zeros([ROWS], gl.float32, gl.SliceLayout(0, SLOT))
        for i in gl.static_range(K):
            m_slot = o_slot == i
            b_slot = gl.sum(gl.where(m_slot[:, None], b_y, 0.0), axis=0)
            total = gl.fma(gl.zeros_like(total) + gl.sum(gl.where(m_slot, b_weight, 0.0), axis=0), b_slot, total)
        o_row = tile * ROWS + gl.arange(0, ROWS, layout=gl.SliceLayout(0, SLOT))
        gl.store(p_out + o_row, total.to(dtype), mask=o_row < H)


@gluon.jit(
    do_not_specialize=[
        "hidden_octets",
        "width_octets",
        "gate_tiles",
        "down_tiles",
        "hidden_blocks",
        "width_blocks",
    ],
)
def _token_kernel(
    x_desc,  # [1, H]
    gate_up_desc,  # [E × 2W, H]
    inner_desc,  # [COLUMNS, W]
    down_desc,  # [E × H, W]
    p_inner,  # [COLUMNS, W], by slot
    p_out,  # [1, H]
    p_ids,  # [1, K] int32
    p_weights,  # [1, K] fp32
    p_ready,  # int32, zero before and after: finished tiles of gate and up, then CTAs that have read it
    hidden_octets,  # H = 8 × hidden_octets, which tells the compiler how wide it may store
    width_octets,
    gate_tiles,
    down_tiles,
    hidden_blocks,
    width_blocks,
    STAGES: gl.constexpr,
    EARLY: gl.constexpr,
    PAIRS: gl.constexpr,
    K: gl.constexpr,
):
    COLUMNS: gl.constexpr = x_desc.block_type.shape[0]
    BLOCK_K: gl.constexpr = x_desc.block_type.shape[1]
    FLAT: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    GATE_ROWS: gl.constexpr = gate_up_desc.block_type.shape[0]
    DOWN_ROWS: gl.constexpr = down_desc.block_type.shape[0]
    ROWS: gl.constexpr = STAGES * (BLOCK_K // BOX) * 2 * BOX
    dtype: gl.constexpr = x_desc.dtype
    x_ring = gl.allocate_shared_memory(dtype, [STAGES, COLUMNS, BLOCK_K], FLAT)
    w_ring = gl.allocate_shared_memory(dtype, [STAGES, 2 * BOX, BLOCK_K], FLAT)
    # the same memory as TMA fills it: groups of 64 columns, each with boxes of rows
    gate_boxes = reinterpret(w_ring, dtype, [ROWS // GATE_ROWS, GATE_ROWS, BOX], FLAT)
    down_boxes = reinterpret(w_ring, dtype, [ROWS // DOWN_ROWS, DOWN_ROWS, BOX], FLAT)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    landed = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(landed.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    launch_dependents()
    descriptors = (x_desc, gate_up_desc, inner_desc, down_desc)
    ring = (x_ring, w_ring, down_boxes, full, empty)
    extent = (hidden_octets * 8, width_octets * 8, gate_tiles, down_tiles, hidden_blocks, width_blocks)
    gl.warp_specialize(
        [
            (_multiply, (ring, landed, p_inner, p_out, p_weights, p_ready, extent, PAIRS, K)),
            (_load, (descriptors, ring, landed, gate_boxes, p_ids, p_ready, extent, EARLY, PAIRS, K)),
        ],
        [1],
        [40],
    )
