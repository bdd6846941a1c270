"""int8 weights with a scale per output channel or per tensor; int8 activations with a scale per token, or with one from
the checkpoint.

A dynamic scale "per tensor" would cover the tokens of a batch. It is made per token here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.layers.row_scaled import RowScaled
from outrider.layers.weight_format import Weight, WeightFormat


@dataclass(frozen=True)
class Format(RowScaled):
    """INT8_W8A8 of compressed-tensors, without zero points."""

    name = "int8"
    dtype = torch.int8
    largest = 127.0

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(), cls(has_scale_per_tensor=True, is_static=True))

    def empty_data(
        self, kernels: Kernels, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None
    ) -> Tensor:
        return kernels.empty_int8(output_size, input_size, device=device, num_experts=num_experts)

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear_int8(x, weight, bias, out_dtype=out_dtype)

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts_int8(x, gate_up, down, routing)
