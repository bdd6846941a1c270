"""Gumbel noise in Triton: Philox-4x32-10 by (seed, completion, position, token id), the words of `reference/noise.py`.

The logarithms are those of CUDA's library, which plain PyTorch on a GPU uses too; a CPU's differ in the last bits.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, log, log1p, rough_log2, wait
from outrider.kernels.triton.launch import OVERLAPPED

_BLOCK = 1024


@triton.jit
def gumbel_of_bits(bits):
    """-log(-log1p(-v)) with v = (bits + 1/2) 2^-32, clamped below 1; bits uint32."""
    v = tl.minimum((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.999999940395355224609375)
    return -log(-log1p(-v))


@triton.jit
def bound_of_bits(bits):
    """A little more than gumbel_of_bits, for an eighth of its work: -log1p(-v) is at least v."""
    return rough_log2((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10) * -0.6931471805599453 + 0.001


@triton.jit
def _philox(seed, o_group, position, completion):
    """Philox-4x32-10: four random words for each group of four token ids; a round takes two 64-bit products."""
    word_0 = o_group.to(tl.uint32)
    word_1 = tl.zeros(o_group.shape, tl.uint32) + position.to(tl.uint32)
    word_2 = tl.zeros(o_group.shape, tl.uint32) + completion.to(tl.uint32)
    word_3 = tl.zeros(o_group.shape, tl.uint32)
    key_0, key_1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        product_a = word_0.to(tl.uint64) * 0xD2511F53
        product_b = word_2.to(tl.uint64) * 0xCD9E8D57
        word_0 = (product_b >> 32).to(tl.uint32) ^ word_1 ^ key_0
        word_1 = product_b.to(tl.uint32)
        word_2 = (product_a >> 32).to(tl.uint32) ^ word_3 ^ key_1
        word_3 = product_a.to(tl.uint32)
        key_0 = (key_0.to(tl.uint64) + 0x9E3779B9).to(tl.uint32)
        key_1 = (key_1.to(tl.uint64) + 0xBB67AE85).to(tl.uint32)
    return word_0, word_1, word_2, word_3


@triton.jit
def bits_block(seed, completion, position, i_group, BLOCK: tl.constexpr):
    """Random words of BLOCK token ids from 4 × i_group on; seed int64, 32 bits of completion and position."""
    return bits_of_groups(seed, completion, position, i_group + tl.arange(0, BLOCK // 4))


@triton.jit
def bits_by_group(seed, completion, position, o_group):
    """Random words of groups of four token ids [N]: [N, 4] uint32."""
    w_0, w_1, w_2, w_3 = _philox(seed, o_group, position, completion)
    return tl.reshape(tl.join(tl.join(w_0, w_2), tl.join(w_1, w_3)), [o_group.shape[0], 4])


@triton.jit
def bits_of_groups(seed, completion, position, o_group):
    """Random words of the token ids of groups of four: [4 × num_groups] uint32."""
    return tl.reshape(bits_by_group(seed, completion, position, o_group), [4 * o_group.shape[0]])


@triton.jit
def bits_of_ids(seed, completion, position, b_id):
    """Random words of any token ids, a block of integers; four are made for each and one is used."""
    w_0, w_1, w_2, w_3 = _philox(seed, b_id >> 2, position, completion)
    lane = b_id & 3
    return tl.where(lane == 0, w_0, tl.where(lane == 1, w_1, tl.where(lane == 2, w_2, w_3)))


@triton.jit
def gumbel_of_ids(seed, completion, position, b_id):
    """Noise of any token ids, a block of integers."""
    return gumbel_of_bits(bits_of_ids(seed, completion, position, b_id))


def gumbel(seeds: Tensor, completion_indices: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """[num_rows, vocab_size] fp32 for int64 [num_rows] seeds, completion_indices and positions."""
    num_rows = seeds.shape[0]
    out = torch.empty(num_rows, vocab_size, dtype=torch.float32, device=seeds.device)
    if num_rows > 0:
        grid = (num_rows, triton.cdiv(vocab_size, _BLOCK))
        _gumbel_kernel[grid](
            seeds, completion_indices, positions, out, vocab_size, BLOCK=_BLOCK, num_warps=4, **OVERLAPPED
        )
    return out


@triton.jit
def _gumbel_kernel(p_seeds, p_completions, p_positions, p_out, vocab_size, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o_id = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wait()
    seed, completion, position = (
        tl.load(p_seeds + i_row),
        tl.load(p_completions + i_row),
        tl.load(p_positions + i_row),
    )
    b_noise = gumbel_of_bits(bits_block(seed, completion, position, tl.program_id(1) * (BLOCK // 4), BLOCK))
    tl.store(p_out + i_row * vocab_size + o_id, b_noise, mask=o_id < vocab_size)


def gumbel_at(seeds: Tensor, completion_indices: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """[num_rows, num_ids] fp32: the numbers `gumbel` gives at `token_ids` (int64 [num_ids])."""
    num_rows, num_ids = seeds.shape[0], token_ids.shape[0]
    out = torch.empty(num_rows, num_ids, dtype=torch.float32, device=seeds.device)
    if num_rows > 0 and num_ids > 0:
        grid = (num_rows, triton.cdiv(num_ids, _BLOCK))
        _gumbel_at_kernel[grid](
            seeds, completion_indices, positions, token_ids, out, num_ids, BLOCK=_BLOCK, num_warps=4, **OVERLAPPED
        )
    return out


@triton.jit
def _gumbel_at_kernel(p_seeds, p_completions, p_positions, p_ids, p_out, num_ids, BLOCK: tl.constexpr):
    launch_dependents()
    i_row = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m = o < num_ids
    wait()
    b_id = tl.load(p_ids + o, mask=m, other=0)
    seed, completion, position = (
        tl.load(p_seeds + i_row),
        tl.load(p_completions + i_row),
        tl.load(p_positions + i_row),
    )
    tl.store(p_out + i_row * num_ids + o, gumbel_of_ids(seed, completion, position, b_id), mask=m)
