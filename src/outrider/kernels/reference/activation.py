"""Gates: that of the gated MLP, and one of a whole row."""

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


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x, y [M, K], gate [M] fp32 -> [M, K] = x + sigmoid(gate) × y; sigmoid and product are rounded to x's dtype."""
    sigmoid = 1.0 / gate.neg().contiguous().exp_().add_(1.0)
    return x + sigmoid.to(x.dtype).unsqueeze(1) * y
