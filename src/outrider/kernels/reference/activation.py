"""Activations: gates of the gated MLP, one of a whole row, those of attention's heads, and gelu without a gate."""

import math

from torch import Tensor


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gate / (1 + exp(-gate))) × up, the gate in fp32.

    torch's silu and sigmoid differ between strided and contiguous input and between places in it; exp of
    contiguous memory does not.
    """
    width = gate_up.shape[1] // 2
    gate, up = gate_up[:, :width].float(), gate_up[:, width:]
    denominator = gate.neg().contiguous().exp_().add_(1.0)
    return (gate / denominator).to(up.dtype).mul_(up)


def gelu_tanh_and_mul(gate_up: Tensor) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gate / (1 + exp(-2u))) × up, the gate in fp32.

    u = sqrt(2 / π) (gate + 0.044715 gate³): (1 + tanh u) / 2 is 1 / (1 + exp(-2u)), and exp has the same bits at every
    place of contiguous memory.
    """
    width = gate_up.shape[1] // 2
    gate, up = gate_up[:, :width].float(), gate_up[:, width:]
    inner = gate * gate * gate * 0.044715 + gate
    denominator = (inner * (-2.0 * math.sqrt(2.0 / math.pi))).contiguous().exp_().add_(1.0)
    return (gate / denominator).to(up.dtype).mul_(up)


def clamped_swiglu(gate_up: Tensor, *, alpha: float, limit: float) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gate / (1 + exp(-alpha × gate)) × (up + 1)), all in fp32.

    The gate is cut to at most limit, up to ± limit.
    """
    width = gate_up.shape[1] // 2
    gate, up = gate_up[:, :width].float().clamp(max=limit), gate_up[:, width:].float().clamp(-limit, limit)
    denominator = (gate * -alpha).contiguous().exp_().add_(1.0)
    return (gate / denominator * (up + 1.0)).to(gate_up.dtype)


def gate_heads(x: Tensor, heads: Tensor) -> Tensor:
    """x [M, H, D], heads [M, at least 2H, D] -> x × cast(sigmoid(gate)); the gate of head i is heads[:, 2i + 1]."""
    gates = heads[:, 1 : 2 * x.shape[1] : 2].float()
    return x * (1.0 / gates.neg().contiguous().exp_().add_(1.0)).to(x.dtype)


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x, y [M, K], gate [M] fp32 -> [M, K] = x + sigmoid(gate) × y; sigmoid and product are rounded to x's dtype."""
    sigmoid = 1.0 / gate.neg().contiguous().exp_().add_(1.0)
    return x + sigmoid.to(x.dtype).unsqueeze(1) * y


def gelu(x: Tensor) -> Tensor:
    """x [M, I] -> [M, I] = cast(x × (1 + erf(x / sqrt(2))) / 2), in fp32.

    torch's gelu has other bits at the end of its memory; erf of contiguous memory does not.
    """
    wide = x.float().contiguous()
    return (wide * math.sqrt(0.5)).erf_().add_(1.0).mul_(wide).mul_(0.5).to(x.dtype)


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """gate_up [M, 2I], gate columns first -> [M, I] = cast(gelu(gate)) × up."""
    width = gate_up.shape[1] // 2
    return gelu(gate_up[:, :width]).mul_(gate_up[:, width:])
