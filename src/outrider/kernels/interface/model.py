"""Kernels of a model's layers: matrix products, norms, activations, mixture of experts, rotation, embedding.

Legend: M tokens, K input width, N output width, H heads, D head dim, E experts, I width of a gated MLP.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Routing(Protocol):
    """The experts of each token, in the order of its router. A stack may add fields for its own `experts`."""

    @property
    def weights(self) -> Tensor:
        """[M, top_k] fp32."""

    @property
    def ids(self) -> Tensor:
        """[M, top_k] int32."""


class ModelKernels(Protocol):
    """Kernels that layers call."""

    def empty_weight(self, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An unfilled weight [output_size, input_size] in the memory layout that `linear` reads fastest."""

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
        whole_shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """x [M, K], weight [N, K], bias [N] -> [M, N] = x weightᵀ + bias, in x's dtype or in out_dtype.

        whole_shape: (N, K) of the whole layer if `weight` is a shard of its rows. The order of summation follows the
        whole shape, so a shard's output has the bits of the same columns of the whole layer's output.
        """

    def linear_compilations(self, dtype: torch.dtype, device: torch.device) -> Sequence[Callable[[], object]]:
        """Calls that compile every kernel that `linear` may launch for x of `dtype`, without launching it. Each can run
        in a thread of its own. Empty if nothing is compiled."""

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, *, plus_one: bool = False, casts_last: bool = False
    ) -> Tensor:
        """x [..., K], weight [K] -> [..., K], Llama's RMSNorm; with `plus_one` multiplied by 1 + weight.

        The normed row is cast and then multiplied. With `plus_one` or `casts_last` the product is fp32, and cast then.
        """

    def add_rms_norm(
        self,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        eps: float,
        *,
        plus_one: bool = False,
        casts_last: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """x, residual [M, K] -> (rms_norm(x + residual), x + residual)."""

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """gate_up [M, 2I], gate columns first -> [M, I] = silu(gate) × up."""

    def gelu_tanh_and_mul(self, gate_up: Tensor) -> Tensor:
        """gate_up [M, 2I], gate columns first -> [M, I] = gelu(gate) × up, gelu in its tanh form."""

    def gate_heads(self, x: Tensor, heads: Tensor) -> Tensor:
        """x [M, H, D], heads [M, at least 2H, D] -> x × sigmoid(gate); the gate of head i is heads[:, 2i + 1]."""

    def add_gated(self, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """x, y [M, K], gate [M] fp32 -> [M, K] = x + sigmoid(gate) × y, the product rounded to x's dtype."""

    def empty_expert_weights(
        self, num_experts: int, output_size: int, input_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Unfilled weights [num_experts, output_size, input_size] in the memory layout that `experts` reads fastest."""

    def route(self, logits: Tensor, *, top_k: int, is_normalized: bool) -> Routing:
        """logits [M, E] fp32 -> the top_k experts of each token, by (logit descending, expert ascending).

        Weights are the softmax over all experts or, if normalized, over the chosen ones. `experts` of the same stack
        takes the result.
        """

    def experts(self, x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing) -> Tensor:
        """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K], the weighted sum of each token's gated MLPs."""

    def rotary(self, x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
        """x [M, H, D], positions [M] int64, cos_sin [P, R] with R <= D -> [M, H, D], the first R columns rotated."""

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        """ids [M] int64 in [0, V), weight [V, K] -> [M, K]."""
