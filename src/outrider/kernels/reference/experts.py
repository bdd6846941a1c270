"""The experts of a mixture: gated MLPs over the tokens that chose them, summed with the router's weights.

Rounding points are those of a dense MLP: gate and up to the model's dtype, silu(gate) from fp32 to that dtype, its
product with up, the row of down. The weighted sum over a token's experts is fp32, in the router's order, rounded once.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.reference.activation import clamped_swiglu, silu_and_mul
from outrider.kernels.reference.linear import TILE, linear
from outrider.kernels.reference.routing import Routing


def empty_expert_weights(
    num_experts: int, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[num_experts, output_size, input_size], each expert stored by columns, as `linear` reads fastest."""
    padded = -(-output_size // TILE) * TILE
    weights = torch.empty(num_experts, input_size, padded, dtype=dtype, device=device)
    return weights[:, :, :output_size].transpose(1, 2)


def experts(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing) -> Tensor:
    """x [T, H], gate_up [E, 2I, H] with gate rows first, down [E, H, I], one dtype -> [T, H].

    Each token is the weighted sum of its experts' gated MLPs. Experts have no capacity limit, and no token is dropped.
    """
    return mixture(
        x,
        routing,
        gate_up.shape[0],
        lambda rows, i: linear(rows, gate_up[i]),
        lambda rows, i: linear(rows, down[i]),
    )


def clamped_experts(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing, form: ClampedForm) -> Tensor:
    """x [T, H], gate_up [E, 2I, H] with gate rows first, down [E, H, I], one dtype -> [T, H].

    The bias of down is added before an expert's row is weighted.
    """
    return mixture(
        x,
        routing,
        gate_up.shape[0],
        lambda rows, i: linear(rows, gate_up[i], form.gate_up_bias[i]),
        lambda rows, i: linear(rows, down[i], form.down_bias[i]),
        gate=gate_of(form),
    )


def gate_of(form: ClampedForm | None) -> Callable[[Tensor], Tensor]:
    """The function between the products of an expert, [T, 2I] -> [T, I]."""
    return silu_and_mul if form is None else partial(clamped_swiglu, alpha=form.alpha, limit=form.limit)


def mixture(
    x: Tensor,
    routing: Routing,
    num_experts: int,
    gate_up: Callable[[Tensor, int], Tensor],
    down: Callable[[Tensor, int], Tensor],
    *,
    gate: Callable[[Tensor], Tensor] = silu_and_mul,
) -> Tensor:
    """x [T, H] -> [T, H], by two products of an expert: gate_up(x, expert) [T, 2I], down(inner, expert) [T, H]."""
    num_tokens, top_k = routing.ids.shape
    of_slots = x.new_empty(num_tokens, top_k, x.shape[1])
    for i_expert in range(num_experts):
        tokens, slots = (routing.ids == i_expert).nonzero(as_tuple=True)
        if len(tokens) > 0:
            of_slots[tokens, slots] = down(gate(gate_up(x[tokens], i_expert)), i_expert)
    total = x.new_zeros(num_tokens, x.shape[1], dtype=torch.float32)
    for i in range(top_k):
        total = total + of_slots[:, i].float() * routing.weights[:, i : i + 1]
    return total.to(x.dtype)
