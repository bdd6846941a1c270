"""Rope, writing of KV, and both with the head norms in one kernel: the bits of plain PyTorch and of each alone."""

import pytest
import torch
from torch import Tensor

from outrider.kernels.reference import kv as reference_kv
from outrider.kernels.reference import rope as reference
from outrider.kernels.triton import kv, norm, rope

from .comparison import replayed

NUM_POSITIONS = 4096
BLOCK_SIZE = 16
HEADS = [(32, 8, 128), (16, 2, 64), (4, 4, 256), (5, 1, 128), (64, 8, 64)]
"""Query heads, KV heads, head dim."""


def make_table(width: int) -> Tensor:
    angles = torch.arange(NUM_POSITIONS, device="cuda")[:, None] / 10000 ** torch.linspace(
        0, 1, width // 2, device="cuda"
    )
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def make_caches(num_tokens: int, num_heads: int, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Caches of NaN, and slots: two tokens of padding share slot 0."""
    num_blocks = num_tokens // BLOCK_SIZE + 3
    shape = (2, num_blocks, BLOCK_SIZE, num_heads, head_dim)
    k_cache, v_cache = torch.full(shape, float("nan"), device="cuda").to(dtype)
    slots = torch.randperm((num_blocks - 1) * BLOCK_SIZE, device="cuda")[:num_tokens] + BLOCK_SIZE
    slots[: min(2, num_tokens - 1)] = 0
    return k_cache, v_cache, slots


def assert_same_bits(ours: Tensor, expected: Tensor) -> None:
    """NaN equals NaN."""
    integer = {2: torch.int16, 4: torch.int32}[ours.element_size()]
    is_same = (ours.view(integer) == expected.view(integer)) | (ours.isnan() & expected.isnan())
    assert is_same.all(), f"{(~is_same).sum().item()} of {is_same.numel()} differ"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("num_heads", "head_dim", "width"), [(32, 128, 128), (3, 64, 32), (5, 96, 96), (8, 256, 64)])
def test_rotary_rounds_as_plain_pytorch(dtype: torch.dtype, num_heads: int, head_dim: int, width: int) -> None:
    wide = torch.randn(500, num_heads + 3, head_dim, device="cuda").to(dtype)
    x = wide[:, 1 : num_heads + 1]
    x[0] *= 1e-38  # numbers below the smallest normal one are kept
    table = make_table(width)
    positions = torch.randint(0, NUM_POSITIONS, (500,), device="cuda")
    out = rope.rotary(x, positions, table)
    assert_same_bits(out, reference.rotary(x, positions, table))
    for num_tokens in (1, 3, 100):
        rows = torch.randperm(500, device="cuda")[:num_tokens]
        assert torch.equal(rope.rotary(x[rows], positions[rows], table), out[rows])
    assert rope.rotary(x[:0], positions[:0], table).shape == (0, num_heads, head_dim)


@pytest.mark.parametrize(("num_kv_heads", "head_dim"), [(8, 128), (3, 80), (1, 256)])
def test_write_kv(num_kv_heads: int, head_dim: int) -> None:
    heads = torch.randn(70, 4 * num_kv_heads, head_dim, device="cuda").bfloat16()
    k, v = heads[:, num_kv_heads : 2 * num_kv_heads], heads[:, 2 * num_kv_heads : 3 * num_kv_heads]
    k_cache, v_cache, slots = make_caches(70, num_kv_heads, head_dim, torch.bfloat16)
    expected = [k_cache.clone(), v_cache.clone()]
    kv.write_kv(k, v, k_cache, v_cache, slots)
    reference_kv.write_kv(k, v, *expected, slots)
    assert_same_bits(k_cache[1:], expected[0][1:])
    assert_same_bits(v_cache[1:], expected[1][1:])
    assert k_cache[0, 1:].isnan().all() and v_cache[0, 1:].isnan().all()


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_all_in_one_kernel_equals_one_after_the_other(
    heads: tuple[int, int, int], has_norm: bool, dtype: torch.dtype
) -> None:
    num_q_heads, num_kv_heads, head_dim = heads
    check_all_in_one(num_q_heads, num_kv_heads, head_dim, head_dim, has_norm=has_norm, dtype=dtype)


@pytest.mark.parametrize(("head_dim", "width"), [(128, 64), (96, 96)])
def test_a_part_of_the_head_and_odd_heads(head_dim: int, width: int) -> None:
    check_all_in_one(8, 2, head_dim, width, has_norm=True, dtype=torch.bfloat16)


@pytest.mark.parametrize("heads", [(4, 1, 256), (8, 4, 256), (32, 16, 128)], ids=str)
def test_norms_that_multiply_by_one_plus_weight(heads: tuple[int, int, int]) -> None:
    num_q_heads, num_kv_heads, head_dim = heads
    check_all_in_one(num_q_heads, num_kv_heads, head_dim, head_dim, has_norm=True, plus_one=True, dtype=torch.bfloat16)


def check_all_in_one(
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    width: int,
    *,
    has_norm: bool,
    dtype: torch.dtype,
    plus_one: bool = False,
) -> None:
    num_tokens = 333
    wide = torch.randn(num_tokens, num_q_heads + 2 * num_kv_heads + 1, head_dim, device="cuda").to(dtype)
    heads = wide[:, : num_q_heads + 2 * num_kv_heads]
    heads *= torch.rand(num_tokens, 1, 1, device="cuda") * 5
    norms = tuple(torch.randn(2, head_dim, device="cuda").to(dtype)) if has_norm else None
    table = make_table(width)
    positions = torch.randint(0, NUM_POSITIONS, (num_tokens,), device="cuda")
    q, k, v = heads.split([num_q_heads, num_kv_heads, num_kv_heads], dim=1)
    if norms is not None:
        q, k = (norm.rms_norm(x, w, 1e-6, plus_one=plus_one) for x, w in zip((q, k), norms, strict=True))
    expected_q, expected_k = rope.rotary(q, positions, table), rope.rotary(k, positions, table)
    for rows in (torch.arange(num_tokens, device="cuda"), torch.randperm(num_tokens, device="cuda")[:5]):
        k_cache, v_cache, slots = make_caches(len(rows), num_kv_heads, head_dim, dtype)
        expected = [k_cache.clone(), v_cache.clone()]
        reference_kv.write_kv(expected_k[rows], v[rows], *expected, slots)
        picked = heads if len(rows) == num_tokens else heads[rows]
        rotated = kv.rotary_and_write_kv(
            picked, positions[rows], table, k_cache, v_cache, slots, norms=norms, eps=1e-6, plus_one=plus_one
        )
        assert_same_bits(rotated, expected_q[rows])
        assert_same_bits(k_cache[1:], expected[0][1:])
        assert_same_bits(v_cache[1:], expected[1][1:])


def test_no_tokens_and_replay_with_other_data() -> None:
    heads = torch.randn(9, 48, 128, device="cuda").bfloat16()
    table = make_table(128)
    positions = torch.arange(9, device="cuda")
    k_cache, v_cache, slots = make_caches(9, 8, 128, torch.bfloat16)
    none = kv.rotary_and_write_kv(heads[:0], positions[:0], table, k_cache, v_cache, slots[:0])
    assert none.shape == (0, 32, 128) and k_cache.isnan().all()
    other = torch.randn_like(heads)

    def change() -> None:
        heads.copy_(other)
        positions.add_(100)

    def run() -> Tensor:
        return kv.rotary_and_write_kv(heads, positions, table, k_cache, v_cache, slots)

    out = replayed(run, change)
    assert torch.equal(out, reference.rotary(other[:, :32], positions, table))
    written = k_cache.flatten(0, 1)[slots[2:]]
    assert torch.equal(written, reference.rotary(other[:, 32:40], positions, table)[2:])
