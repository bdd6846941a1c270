"""Masses of tokens in Triton: integers, so that no sum of them depends on an order. Knows one row's numbers only.

A mass comes from the GPU's rough exponential: its last bits differ from a CPU's, as do the GPU's other results.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl
from triton.language.target_info import is_cuda

from outrider.kernels.triton.intrinsics import IS_INTERPRETED, fma_down, rough_exp2

OFFSET = tl.constexpr(0x4B000000)
"""Bits of 2^23, which are added to the halves of masses."""


@triton.jit
def scaled(b, largest, temperature):
    """(logit - largest) / temperature, at most 0."""
    return tl.math.div_rn(b - tl.where(largest == float("-inf"), 0.0, largest) + 0.0, temperature)


@triton.jit
def slope_of(temperature):
    """log2(e) / temperature, the factor of differences of logits in exponents of two."""
    return tl.minimum(tl.math.div_rn(1.4426950408889634, temperature), 3.4028234663852886e38)


@triton.jit
def weight_of(b, largest, slope):
    """About exp((logit - largest) / temperature), at most 1: one element-wise function, so the same bits anywhere."""
    return tl.minimum(rough_exp2((b - tl.where(largest == float("-inf"), 0.0, largest)) * slope), 1.0)


@triton.jit
def mass_of(b, largest, slope):
    """Weight in units of 2^-40, int64."""
    return (weight_of(b, largest, slope) * 1099511627776.0).to(tl.int64)


@triton.jit
def split_mass(b_weight):
    """The mass of a weight as two int32, upper bits and lower 20, each with OFFSET: adding 2^23, rounded down, leaves
    an integer in the mantissa."""
    if IS_INTERPRETED or not is_cuda():
        b_mass = (b_weight * 1099511627776.0).to(tl.int64)
        return (b_mass >> 20).to(tl.int32) + OFFSET, (b_mass & 0xFFFFF).to(tl.int32) + OFFSET
    else:
        b_high = fma_down(b_weight, 1048576.0, 8388608.0)
        b_rest = b_weight * 1048576.0 - (b_high - 8388608.0)  # exact
        b_low = fma_down(b_rest, 1048576.0, 8388608.0)
        return b_high.to(tl.int32, bitcast=True), b_low.to(tl.int32, bitcast=True)


@triton.jit
def joined_mass(b_high, b_low, NUM: tl.constexpr):
    """Sums of NUM masses in halves, which fit into an int32 without their offsets: int64."""
    offset = tl.full([], (NUM * OFFSET) & 0xFFFFFFFF, tl.uint32).to(tl.int32, bitcast=True)
    return ((b_high - offset).to(tl.int64) << 20) + (b_low - offset).to(tl.int64)


@triton.jit
def needed_mass(top_p, total):
    """The mass that top_p asks for: one token at least."""
    return tl.maximum(tl.ceil(top_p.to(tl.float64) * total.to(tl.float64)).to(tl.int64), 1)


@triton.jit
def add_pairs(a, b, c, d):
    """For tl.reduce over two blocks at once."""
    return a + c, b + d
