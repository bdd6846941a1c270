"""Norm, activation and embedding kernels against plain PyTorch."""

import pytest
import torch
from torch import Tensor

from outrider.kernels.triton import activation, embedding, norm

from .comparison import assert_close, replayed

WIDTHS = (64, 128, 1000, 4096, 5120, 16384)


def exact_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.double()
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.double()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rms_norm(width: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(333, width, device="cuda").to(dtype), torch.randn(width, device="cuda").to(dtype)
    out = norm.rms_norm(x, weight, 1e-5)
    assert_close("norm", out, exact_norm(x, weight, 1e-5), dtype=dtype)
    for num_rows in (1, 2, 17, 100):
        rows = torch.randperm(333, device="cuda")[:num_rows]
        assert torch.equal(norm.rms_norm(x[rows], weight, 1e-5), out[rows])
    assert norm.rms_norm(x[:0], weight, 1e-5).shape == (0, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_add_rms_norm_rounds_the_sum_first(width: int) -> None:
    x, residual, weight = (torch.randn(n, width, device="cuda").bfloat16() for n in (65, 65, 1))
    out, total = norm.add_rms_norm(x, residual, weight[0], 1e-6)
    assert torch.equal(total, x + residual)
    assert torch.equal(out, norm.rms_norm(total, weight[0], 1e-6))


def test_norm_of_heads_in_a_projection() -> None:
    heads = torch.randn(50, 48, 128, device="cuda").bfloat16()
    weight = torch.randn(128, device="cuda").bfloat16()
    assert torch.equal(norm.rms_norm(heads[:, 32:40], weight, 1e-6), norm.rms_norm(heads, weight, 1e-6)[:, 32:40])


@pytest.mark.parametrize("width", [8, 1000, 14336])
def test_silu_and_mul(width: int) -> None:
    wide = torch.randn(77, 2 * width + 8, device="cuda").bfloat16()
    gate_up = wide[:, : 2 * width]
    gate, up = gate_up[:, :width], gate_up[:, width:]
    out = activation.silu_and_mul(gate_up)
    exact = torch.nn.functional.silu(gate.double()) * up.double()
    assert_close("activation", out, exact, dtype=torch.bfloat16)
    assert torch.equal(out[3:5], activation.silu_and_mul(gate_up[3:5]))
    assert activation.silu_and_mul(gate_up[:0]).shape == (0, width)


@pytest.mark.parametrize("width", [8, 1000, 10240])
def test_gelu_tanh_and_mul(width: int) -> None:
    wide = torch.randn(77, 2 * width + 8, device="cuda").bfloat16() * 3
    gate_up = wide[:, : 2 * width]
    gate_up[0, :width] = torch.linspace(-200, 200, width, device="cuda")
    gate, up = gate_up[:, :width], gate_up[:, width:]
    out = activation.gelu_tanh_and_mul(gate_up)
    exact = torch.nn.functional.gelu(gate.double(), approximate="tanh") * up.double()
    assert_close("activation", out, exact, dtype=torch.bfloat16)
    assert torch.equal(out[3:5], activation.gelu_tanh_and_mul(gate_up[3:5]))
    assert activation.gelu_tanh_and_mul(gate_up[:0]).shape == (0, width)


@pytest.mark.parametrize("width", [8, 1000, 2048])
def test_a_gate_of_a_whole_row(width: int) -> None:
    x, y = (torch.randn(77, width, device="cuda").bfloat16() for _ in range(2))
    gate = torch.randn(77, 129, device="cuda")[:, 128]
    out = activation.add_gated(x, y, gate)
    assert torch.equal(out, x + (1.0 / (1.0 + torch.exp(-gate))).bfloat16().unsqueeze(1) * y)
    assert torch.equal(out[3:5], activation.add_gated(x[3:5], y[3:5], gate[3:5]))
    assert activation.add_gated(x[:0], y[:0], gate[:0]).shape == (0, width)


def test_embedding() -> None:
    table = torch.randn(151936, 1000, device="cuda").bfloat16()
    ids = torch.randint(0, 151936, (70,), device="cuda")
    assert torch.equal(embedding.embedding(ids, table), table[ids])

    def change() -> None:
        ids.copy_(torch.arange(70, device="cuda"))

    assert torch.equal(replayed(lambda: embedding.embedding(ids, table), change), table[:70])
