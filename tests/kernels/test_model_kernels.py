"""The small kernels: each against its formula on odd shapes, and row by row bitwise in every company."""

import pytest
import torch

from outrider.kernels import load_kernels

KERNELS = load_kernels(("reference",))
TOLERANCE = 2e-6
"""Relative RMS error in fp32."""


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.double()
    return float((actual.double() - expected).norm() / expected.norm().clamp(min=1e-30))


def _weight(output_size: int, input_size: int) -> torch.Tensor:
    weight = KERNELS.empty_weight(output_size, input_size, dtype=torch.float32, device=torch.device("cpu"))
    return weight.copy_(_random(output_size, input_size, seed=9) * input_size**-0.5)


@pytest.mark.parametrize(
    ("num_rows", "width", "output"), [(0, 16, 7), (1, 16, 1), (3, 37, 503), (16, 64, 48), (63, 96, 17)]
)
def test_linear_is_the_product(num_rows, width, output):
    x, weight, bias = _random(num_rows, width), _weight(output, width), _random(output, seed=2)
    expected = x.double() @ weight.double().t()
    assert KERNELS.linear(x, weight).shape == (num_rows, output)
    assert _error(KERNELS.linear(x, weight), expected) < TOLERANCE
    assert _error(KERNELS.linear(x, weight, bias), expected + bias) < TOLERANCE


@pytest.mark.parametrize("is_transposed", [True, False], ids=["by columns", "by rows"])
@pytest.mark.parametrize(("width", "output"), [(16, 1), (37, 503), (64, 48), (256, 96), (1024, 64), (1024, 1024)])
def test_rows_of_linear_do_not_see_each_other(threads, rows_are_invariant, width, output, is_transposed):
    weight = _weight(output, width)
    weight = weight if is_transposed else weight.contiguous()
    rows_are_invariant(lambda x: KERNELS.linear(x, weight), _random(110, width))


def test_linear_reads_strided_and_unaligned_rows(threads):
    weight, wide = _weight(48, 64), _random(40, 129)
    expected = KERNELS.linear(wide[:, 1:65].contiguous(), weight)
    assert torch.equal(KERNELS.linear(wide[:, 1:65], weight), expected)
    flat = torch.empty(40 * 64 + 1)[1:].view(40, 64).copy_(wide[:, 1:65])
    assert flat.data_ptr() % 64
    assert torch.equal(KERNELS.linear(flat, weight), expected)


def test_a_row_of_nan_stays_alone():
    x, weight = _random(20, 64), _weight(33, 64)
    poisoned = x.clone()
    poisoned[7] = float("nan")
    others = [row for row in range(20) if row != 7]
    for function in (
        lambda rows: KERNELS.linear(rows, weight),
        lambda rows: KERNELS.rms_norm(rows, torch.ones(64), 1e-6),
        KERNELS.silu_and_mul,
        KERNELS.gelu_tanh_and_mul,
    ):
        assert torch.equal(function(poisoned)[others], function(x)[others])
        assert function(poisoned)[7].isnan().all()


@pytest.mark.parametrize("width", [16, 100, 512])
def test_norms_round_where_they_say(width):
    """Llama's casts before the weight, OLMo's after it, and so does 1 + weight."""
    x, weight = _random(9, width).bfloat16() * 3, (_random(2, width)[0] + 1.0).bfloat16()
    exact = KERNELS.rms_norm(x.float(), torch.ones(width), 1e-6)
    plain, last = exact.bfloat16() * weight, (exact * weight.float()).bfloat16()
    assert not torch.equal(plain, last)
    for function in (KERNELS.rms_norm, lambda *rest, **flags: KERNELS.add_rms_norm(rest[0] * 0, *rest, **flags)[0]):
        assert torch.equal(function(x, weight, 1e-6), plain)
        assert torch.equal(function(x, weight, 1e-6, casts_last=True), last)
        wide = (exact * (weight.float() + 1.0)).bfloat16()
        assert torch.equal(function(x, weight, 1e-6, plus_one=True), wide)


@pytest.mark.parametrize("shape", [(0, 64), (0, 256), (1, 1), (5, 37), (3, 4, 16), (63, 100), (2, 1000)])
def test_rms_norm_is_its_formula(shape):
    x, weight = _random(*shape) * 3, _random(shape[-1], seed=3)
    wide = x.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    assert KERNELS.rms_norm(x, weight, 1e-5).shape == shape
    assert _error(KERNELS.rms_norm(x, weight, 1e-5), expected) < TOLERANCE
    residual = _random(*shape, seed=4)
    normed, total = KERNELS.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, KERNELS.rms_norm(x + residual, weight, 1e-5))


def test_the_epsilon_of_rms_norm_counts_in_small_rows():
    x, weight = _random(5, 64) * 1e-3, torch.ones(64)
    for eps in (1e-5, 1e-6):
        expected = x.double() / (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()
        assert _error(KERNELS.rms_norm(x, weight, eps), expected) < TOLERANCE
    assert torch.equal(KERNELS.rms_norm(torch.zeros(2, 64), weight, 1e-6), torch.zeros(2, 64))


def test_rms_norm_casts_before_it_multiplies():
    x, weight = _random(4, 32).bfloat16(), _random(32, seed=1).bfloat16()
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(KERNELS.rms_norm(x, weight, 1e-6), normed.bfloat16() * weight)


@pytest.mark.parametrize("width", [16, 37, 64, 128, 129, 256, 1024])
def test_rows_of_norms_do_not_see_each_other(threads, rows_are_invariant, width):
    weight, x, residual = _random(width, seed=1), _random(110, width), _random(110, width, seed=2)
    rows_are_invariant(lambda rows: KERNELS.rms_norm(rows, weight, 1e-6), x)
    rows_are_invariant(lambda rows: KERNELS.rms_norm(rows, weight, 1e-6), x.view(55, 2, width), counts=[1, 2, 9, 55])
    rows_are_invariant(lambda *pair: KERNELS.add_rms_norm(*pair, weight, 1e-6)[0], x, residual)


@pytest.mark.parametrize(("num_rows", "width"), [(0, 4), (1, 1), (5, 37), (17, 96)])
def test_silu_and_mul_is_its_formula(num_rows, width):
    gate_up = _random(num_rows, 2 * width) * 4
    gate, up = gate_up.double().chunk(2, dim=1)
    assert _error(KERNELS.silu_and_mul(gate_up), gate / (1 + torch.exp(-gate)) * up) < TOLERANCE


def test_half_precision_is_rounded_where_the_model_says():
    x, weight = _random(5, 64).bfloat16(), _weight(7, 64).bfloat16()
    exact = x.double() @ weight.double().t()
    assert KERNELS.linear(x, weight).dtype == torch.bfloat16
    assert _error(KERNELS.linear(x, weight, out_dtype=torch.float32), exact) < TOLERANCE
    gate, up = x.chunk(2, dim=1)
    wide = gate.float()
    assert torch.equal(KERNELS.silu_and_mul(x), (wide / (1 + torch.exp(-wide))).bfloat16() * up)


def test_silu_of_large_numbers_is_finite():
    gate = torch.tensor([[-1000.0, -90.0, 0.0, 90.0, 1000.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0, 90.0, 1000.0]])
    torch.testing.assert_close(KERNELS.silu_and_mul(torch.cat([gate, torch.ones_like(gate)], 1)), expected)


@pytest.mark.parametrize("width", [1, 37, 96])
def test_rows_behind_a_gate_do_not_see_each_other(threads, rows_are_invariant, width):
    gates = _random(110, 9)
    rows_are_invariant(
        lambda x, y, gate: KERNELS.add_gated(x, y, gate[:, 8]), _random(110, width), _random(110, width, seed=1), gates
    )


@pytest.mark.parametrize("function", [KERNELS.silu_and_mul, KERNELS.gelu_tanh_and_mul])
@pytest.mark.parametrize("width", [1, 37, 96, 512])
def test_rows_of_an_activation_do_not_see_each_other(threads, rows_are_invariant, width, function):
    x = _random(110, 2 * width) * 5
    rows_are_invariant(function, x)
    strided = _random(9, 2 * width + 3)[:, 1 : 2 * width + 1]
    assert torch.equal(function(strided), function(strided.contiguous()))


@pytest.mark.parametrize(("head_dim", "rotated"), [(16, 16), (32, 8), (64, 64), (64, 48)])
def test_rotary_turns_halves(threads, rows_are_invariant, head_dim, rotated):
    x, table = _random(110, 3, head_dim), _random(200, rotated, seed=1)
    positions = torch.randint(0, 200, (110,), generator=torch.Generator().manual_seed(2))
    half = rotated // 2
    turned = KERNELS.rotary(x, positions, table)
    for row in (0, 51, 109):
        cos, sin = table[positions[row], :half], table[positions[row], half:]
        for head in range(3):
            first, second, rest = x[row, head].split([half, half, head_dim - rotated])
            expected = torch.cat([first * cos - second * sin, second * cos + first * sin, rest])
            torch.testing.assert_close(turned[row, head], expected, rtol=0, atol=0)
    rows_are_invariant(lambda rows, at: KERNELS.rotary(rows, at, table), x, positions)
    assert KERNELS.rotary(x[:0], positions[:0], table).shape == (0, 3, head_dim)
    wide = _random(110, 5, head_dim, seed=5)
    assert torch.equal(
        KERNELS.rotary(wide[:, 1:3], positions, table), KERNELS.rotary(wide[:, 1:3].contiguous(), positions, table)
    )


def test_embedding_takes_rows():
    table = _random(503, 24)
    ids = torch.tensor([502, 0, 3, 3])
    assert torch.equal(KERNELS.embedding(ids, table), table[ids])
    assert KERNELS.embedding(ids[:0], table).shape == (0, 24)


def test_write_kv_touches_its_slots_only():
    k_cache, v_cache = (torch.full((5, 16, 2, 8), float("nan")) for _ in range(2))
    heads = _random(7, 6, 8)
    slots = torch.tensor([79, 16, 33, 34, 48, 0, 0])  # the last two are padding, in the null block
    KERNELS.write_kv(heads[:, 2:4], heads[:, 4:], k_cache, v_cache, slots)
    for cache, written in ((k_cache, heads[:, 2:4]), (v_cache, heads[:, 4:])):
        flat = cache.view(-1, 2, 8)
        assert torch.equal(flat[slots[:5]], written[:5])
        assert flat.isnan().all(dim=(1, 2)).sum() == 80 - 6
    KERNELS.write_kv(heads[:0, 2:4], heads[:0, 4:], k_cache, v_cache, slots[:0])
