"""Parts of the kernels of experts in Gluon: a ring that TMA fills, the chain of wgmmas over it, silu(gate) × up.

A tile has 128 rows of weights in the M dimension of wgmma and tokens in its N dimension. For gate and up it has 64 rows
of each, and a pair has the same place in the two halves. The callers decide which rows of which expert a tile has.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma, warpgroup_mma_wait
from triton.language.core import extern, inline_asm_elementwise, int32

BOX = gl.constexpr(64)
"""Columns that TMA loads at once, 128 bytes; also half of a tile's rows."""


@extern
def fence_proxies(_semantic=None):
    """Orders a thread's plain accesses of global memory with those of TMA."""
    inline_asm_elementwise(
        "fence.proxy.async.global; // dummy $0", "=r", [], dtype=int32, is_pure=False, pack=1, _semantic=_semantic
    )


@gluon.constexpr_function
def _sum_layout(tokens):
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[8, 1], instr_shape=[16, tokens, 16])


@gluon.constexpr_function
def columns(tokens):
    """Bases of the columns: one to lanes, three to warps, the rest to registers."""
    return [1 << i for i in range((tokens - 1).bit_length())]


@gluon.constexpr_function
def _pair_layout(tokens):
    """Layout of [64, tokens, 2]: each thread has gate and up of four neighbours."""
    registers = [[0, 0, 1], [1, 0, 0], [2, 0, 0]] + [[0, c, 0] for c in columns(tokens)[4:]]
    lanes = [[4, 0, 0], [8, 0, 0], [16, 0, 0], [32, 0, 0], [0, 1, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[0, 2, 0], [0, 4, 0], [0, 8, 0]], [], [64, tokens, 2])


@gluon.constexpr_function
def _inner_layout(tokens):
    """Layout of [64, tokens]: each thread has 8 bytes of a row."""
    registers = [[1, 0], [2, 0]] + [[0, c] for c in columns(tokens)[4:]]
    lanes = [[4, 0], [8, 0], [16, 0], [32, 0], [0, 1]]
    return gl.DistributedLinearLayout(registers, lanes, [[0, 2], [0, 4], [0, 8]], [], [64, tokens])


@gluon.jit
def product(ring, step, num_blocks, landed=None, late_step=0):
    """[128, TILE] fp32 of the next `num_blocks` stages, which begin at `step`.

    If weights have barriers of their own, `landed`, these begin at `late_step`.
    """
    x_ring, w_ring, _, full, empty = ring
    STAGES: gl.constexpr = x_ring.shape[0]
    TILE: gl.constexpr = x_ring.shape[1]
    acc = gl.zeros([2 * BOX, TILE], gl.float32, _sum_layout(TILE))
    for k in range(num_blocks):
        stage = (step + k) % STAGES
        mbarrier.wait(full.index(stage), ((step + k) // STAGES) & 1)
        if landed is not None:
            mbarrier.wait(landed.index((late_step + k) % STAGES), ((late_step + k) // STAGES) & 1)
        b_x = x_ring.index(stage).permute((1, 0))
        acc = warpgroup_mma(w_ring.index(stage), b_x, acc, use_acc=k > 0, is_async=True)
        acc = warpgroup_mma_wait(1, deps=(acc,))
        mbarrier.arrive(empty.index((step + k + STAGES - 1) % STAGES), pred=k > 0)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(empty.index((step + num_blocks + STAGES - 1) % STAGES))
    return acc


@gluon.jit
def gated(acc, dtype: gl.constexpr):
    """[128, TILE] fp32, gate and up -> silu(gate) × up [64, TILE]."""
    TILE: gl.constexpr = acc.shape[1]
    b_pair = acc.to(dtype).reshape([2, BOX, TILE]).permute((1, 2, 0))
    b_gate, b_up = gl.convert_layout(b_pair, _pair_layout(TILE)).split()
    b_wide = b_gate.to(gl.float32)
    b_silu = (b_wide / (1.0 + gl.exp(-b_wide))).to(dtype)
    return gl.convert_layout((b_silu.to(gl.float32) * b_up.to(gl.float32)).to(dtype), _inner_layout(TILE))
