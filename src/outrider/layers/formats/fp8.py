"""e4m3 weights with a scale per output channel or per tensor; e4m3 activations with a scale per token, or with one from
the checkpoint.

A dynamic scale "per tensor" would cover the tokens of a batch. It is made per token here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.layers.quantised import E4M3_LARGEST
from outrider.layers.row_scaled import RowScaled
from outrider.layers.weight_format import Weight


@dataclass(frozen=True)
class Format(RowScaled):
    """FP8 of compressed-tensors (FP8, FP8_DYNAMIC), `fp8` without blocks, and modelopt."""

    name = "fp8"
    dtype = torch.float8_e4m3fn
    largest = E4M3_LARGEST

    def empty_data(
        self, kernels: Kernels, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None
    ) -> Tensor:
        return kernels.empty_fp8(output_size, input_size, device=device, num_experts=num_experts)

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear_fp8(x, weight, bias, out_dtype=out_dtype)

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts_fp8(x, gate_up, down, routing)
