"""A hash of the bits of each row of logits, on a GPU. Integers only, so it equals that of the reference."""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED

_BLOCK = 2048
_CHUNK = 2 * _BLOCK
"""Logits of a program."""

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_FACTOR_A = tl.constexpr(0xBF58476D1CE4E5B9)
_FACTOR_B = tl.constexpr(0x94D049BB133111EB)
"""The constants of splitmix64."""


def hash_rows(logits: Tensor) -> Tensor:
    """Hash of the bits of each row: [num_rows] int64 of [num_rows, vocab_size] fp32, equal to the reference's."""
    num_rows, vocab_size = logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == 1, f"logits are {logits.dtype}, not rows of float32"
    out = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows > 0:
        num_chunks = triton.cdiv(vocab_size, _CHUNK)
        parts = torch.empty(num_rows, num_chunks, dtype=torch.int64, device=logits.device)
        _hash_kernel[(num_rows, num_chunks)](
            logits, parts, vocab_size, logits.stride(0), CHUNK=_CHUNK, BLOCK=_BLOCK, num_warps=4, **OVERLAPPED
        )
        _hash_sum_kernel[(num_rows,)](
            parts, out, vocab_size, num_chunks, CHUNKS=triton.next_power_of_2(num_chunks), num_warps=1, **OVERLAPPED
        )
    return out


@triton.jit
def _mix(words):
    """splitmix64's bijection of uint64."""
    words = (words ^ (words >> 30)) * _FACTOR_A
    words = (words ^ (words >> 27)) * _FACTOR_B
    return words ^ (words >> 31)


@triton.jit
def _hash_kernel(p_logits, p_parts, vocab_size, stride, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    launch_dependents()
    i_row, i_chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b_sum = tl.zeros([BLOCK], tl.int64)
    wait()
    for start in range(i_chunk * CHUNK, tl.minimum(i_chunk * CHUNK + CHUNK, vocab_size), BLOCK):
        o = start + tl.arange(0, BLOCK)
        b = tl.load(p_logits + i_row * stride + o, mask=o < vocab_size, other=0.0)
        b_word = b.to(tl.uint32, bitcast=True).to(tl.uint64) | (o.to(tl.uint64) << 32)
        b_mixed = _mix(b_word ^ _GOLDEN).to(tl.int64, bitcast=True)
        b_sum += tl.where(o < vocab_size, b_mixed, 0)
    tl.store(p_parts + i_row * tl.num_programs(1) + i_chunk, tl.sum(b_sum, axis=0))


@triton.jit
def _hash_sum_kernel(p_parts, p_out, vocab_size, num_chunks, CHUNKS: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, CHUNKS)
    wait()
    total = tl.sum(tl.load(p_parts + i_row * num_chunks + o, mask=o < num_chunks, other=0), axis=0) + vocab_size
    tl.store(p_out + i_row, _mix(total.to(tl.uint64, bitcast=True)).to(tl.int64, bitcast=True))
