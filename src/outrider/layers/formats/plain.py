"""Weights in the model's own floating-point dtype, one tensor per matrix: `weight`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.kernels.interface.clamped import ClampedForm
from outrider.layers.quantised import missing_kernels
from outrider.layers.weight_format import Weight, WeightFormat
from outrider.loading.slot import Destination


@dataclass(frozen=True)
class Format(WeightFormat):
    """bfloat16, float16 or float32, the dtype of the activations. Nothing is scaled, so no exactness rule applies."""

    name = "plain"
    scales_activations_by = None

    def empty(
        self,
        kernels: Kernels,
        output_size: int,
        input_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        num_experts: int | None = None,
    ) -> Weight:
        if num_experts is None:
            data = kernels.empty_weight(output_size, input_size, dtype=dtype, device=device)
        else:
            data = kernels.empty_expert_weights(num_experts, output_size, input_size, dtype=dtype, device=device)
        return Weight(format=self, data=data, whole_shape=(output_size, input_size))

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        return {"weight": weight.data[..., first : first + count, :]}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        return tensors["weight"].float()

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear(x, weight.data, bias, out_dtype=out_dtype, whole_shape=weight.whole_shape)

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts(x, gate_up.data, down.data, routing)

    def refuses_clamped(self, kernels: Kernels) -> str | None:
        missing = missing_kernels(kernels, "clamped_experts")
        return missing and f"{missing}. Use device='cpu'"

    def clamped_experts(
        self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any, form: ClampedForm
    ) -> Tensor:
        return kernels.clamped_experts(x, gate_up.data, down.data, routing, form)
