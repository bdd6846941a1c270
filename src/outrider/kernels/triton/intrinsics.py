"""Instructions, functions of the device's library, and the order of overlapping kernels, for Triton.

Each has a form for NVIDIA's GPUs, one for AMD's, and a stand-in under Triton's interpreter. The logarithms and `exp`
are those of the device's library, which plain PyTorch on a GPU calls too.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.language.target_info import cuda_capability_geq, is_cuda

IS_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def launch_dependents():
    """Lets the next kernel start, if launched `OVERLAPPED`. It must `wait` before it reads what this one writes."""
    if not IS_INTERPRETED and cuda_capability_geq(9, 0):
        gdc_launch_dependents()


@triton.jit
def wait():
    """Waits for all kernels before this one, which only kernels launched `OVERLAPPED` have to do."""
    if not IS_INTERPRETED and cuda_capability_geq(9, 0):
        gdc_wait()


@triton.jit
def product(a, b):
    """fp32 a × b, rounded before anything is added to it: the compiler cannot make an fma of it."""
    if IS_INTERPRETED:
        return a * b
    elif is_cuda():
        return tl.inline_asm_elementwise(
            "mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.inline_asm_elementwise(
            "v_mul_f32 $0, $1, $2", "=v,v,v", [a, b], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def exp(x):
    return tl.exp(x) if IS_INTERPRETED else libdevice.exp(x)


@triton.jit
def log(x):
    return tl.log(x) if IS_INTERPRETED else libdevice.log(x)


@triton.jit
def log1p(x):
    """log(1 + x); the interpreter rounds 1 + x first."""
    return tl.log(1.0 + x) if IS_INTERPRETED else libdevice.log1p(x)


@triton.jit
def rough_log2(x):
    """log2 of normal numbers, to about 2^-20: for bounds, never for a result."""
    if IS_INTERPRETED:
        return tl.log2(x)
    elif is_cuda():
        return tl.inline_asm_elementwise("lg2.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return tl.log2(x)


@triton.jit
def rough_exp2(x):
    """2^x by one instruction, to about 2^-22; a tiny result is 0."""
    if IS_INTERPRETED:
        return tl.exp2(x)
    elif is_cuda():
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
def is_from(x, limit):
    """1.0 where x is `limit` or more, 0.0 elsewhere and for NaN: one instruction instead of the two of a selection."""
    if IS_INTERPRETED:
        return tl.where(x >= limit, 1.0, 0.0)
    elif is_cuda():
        return tl.inline_asm_elementwise(
            "set.ge.f32.f32 $0, $1, $2;",
            "=f,f,f",
            [x, tl.zeros(x.shape, tl.float32) + limit],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        return tl.where(x >= limit, 1.0, 0.0)


@triton.jit
def fma_down(x, FACTOR: tl.constexpr, OFFSET: tl.constexpr):
    """x × FACTOR + OFFSET of positive fp32, rounded down; on NVIDIA's GPUs only."""
    return tl.inline_asm_elementwise(
        "fma.rz.f32 $0, $1, $2, $3;",
        "=f,f,f,f",
        [x, tl.full(x.shape, FACTOR, tl.float32), tl.full(x.shape, OFFSET, tl.float32)],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def num_bits(x):
    """Bits of int32 that are set."""
    if is_cuda():
        return libdevice.popc(x)
    else:
        return tl.inline_asm_elementwise("v_bcnt_u32_b32 $0, $1, 0", "=v,v", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def lowest_bit(x):
    """Place of the lowest bit of int32 that is set, from 0; any value if no bit is set."""
    if is_cuda():
        return libdevice.ffs(x) - 1
    else:
        return tl.inline_asm_elementwise("v_ffbl_b32 $0, $1", "=v,v", [x], dtype=tl.int32, is_pure=True, pack=1)
