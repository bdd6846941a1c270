"""The order of tokens in Triton: (logit descending, id ascending), as integers that can be compared and joined.

A key is an int64: the logit's bits, made monotonic, above the id counted down. Keys of a row are unique, so the largest
of many is the same however they are joined.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import triton
import triton.language as tl

NOTHING = tl.constexpr(-0x8000000000000000)
"""Less than the key of any token."""

LARGEST = tl.constexpr(3.4028234663852886e38)
"""The largest finite fp32, which stands for +inf."""

LOWEST = tl.constexpr(-3.4028234663852886e38)
"""The smallest finite fp32: every token that is not masked has it or more."""


@triton.jit
def finite(b):
    """NaN becomes -inf, +inf the largest fp32, -0 becomes 0."""
    b = tl.maximum(b, float("-inf"))  # of a NaN and a number, the number
    return tl.minimum(b, LARGEST) + 0.0


@triton.jit
def load_finite(p, m):
    """Logits at `p`; -inf where they are masked."""
    return finite(tl.load(p, mask=m, other=float("-inf")))


@triton.jit
def monotonic(b):
    """int32 in the order of fp32 values without -0."""
    bits = b.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(high):
    """The fp32 value of a monotonic int32."""
    return (high ^ ((high >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_of(b, o_id):
    """Keys of values without NaN and -0, at ids."""
    return (monotonic(b).to(tl.int64) << 32) | (0xFFFFFFFF - o_id.to(tl.int64))


@triton.jit
def id_of(key):
    return 0xFFFFFFFF - (key & 0xFFFFFFFF)


@triton.jit
def logit_of(key):
    return value_of((key >> 32).to(tl.int32))


@triton.jit
def largest_of(p_keys, num_keys, BLOCK: tl.constexpr):
    """The largest of `num_keys` keys."""
    o = tl.arange(0, BLOCK)
    return tl.max(tl.load(p_keys + o, mask=o < num_keys, other=NOTHING), axis=0)
