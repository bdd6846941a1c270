"""MXFP4: 4-bit floats (e2m1) whose groups of 32 columns share a power of two (e8m0). Activations stay as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.kernels.interface.clamped import ClampedForm
from outrider.layers.grouped_int4 import halves
from outrider.layers.quantised import missing_kernels
from outrider.layers.weight_format import Weight, WeightFormat
from outrider.loading.slot import Destination, Slot

SIZE = 32
"""Columns of a group."""

_MIDDLES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Between neighbouring magnitudes of e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6."""


@dataclass(frozen=True)
class Format(WeightFormat):
    """Two values in a byte, the lower column in the lower half, in files as in memory."""

    is_packed: bool = False
    """The files hold all experts in one tensor, `…_blocks` [E, N, K / 32, 16] and `…_scales` [E, N, K / 32], as gpt-oss
    does; otherwise `weight_packed` [N, K / 2] and `weight_scale` of compressed-tensors."""

    name = "mxfp4"

    scales_activations_by = None

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(), cls(is_packed=True))

    def refuses(self, kernels: Kernels) -> str | None:
        return missing_kernels(kernels, "empty_int4", "linear_mxfp4", "experts_mxfp4")

    def refuses_shape(self, output_size: int, input_size: int, *, is_expert: bool) -> str | None:
        return f"groups of {SIZE} do not divide an input of {input_size}" if input_size % SIZE else None

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
        experts = () if num_experts is None else (num_experts,)
        return Weight(
            format=self,
            data=kernels.empty_int4(output_size, input_size, device=device, num_experts=num_experts),
            scales=torch.empty(*experts, output_size, input_size // SIZE, dtype=torch.uint8, device=device),
            whole_shape=(output_size, input_size),
        )

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        assert weight.scales is not None, "a weight of this format has scales"
        data, scales = weight.data[..., first : first + count, :], weight.scales[..., first : first + count, :]

        def fill_data(found: Tensor) -> None:
            data.copy_(found.view(torch.uint8).reshape(data.shape))

        def fill_scales(found: Tensor) -> None:
            exponents = found.view(torch.uint8)
            if bool((exponents == 255).any()):
                raise ValueError("holds scales that are not numbers. Download it again, or quantise it again.")
            scales.copy_(exponents)

        groups = tuple(scales.shape)
        shapes = ((*groups, SIZE // 2), tuple(data.shape)) if self.is_packed else (tuple(data.shape),)
        names = ("weight_blocks", "weight_scales") if self.is_packed else ("weight_packed", "weight_scale")
        return {
            names[0]: Slot(shapes=shapes, dtypes=(torch.uint8,), fill=fill_data),
            names[1]: Slot(shapes=(groups,), dtypes=(torch.uint8, torch.float8_e8m0fnu), fill=fill_scales),
        }

    def encode(self, dense: Tensor) -> Mapping[str, Tensor]:
        groups = dense.float().view(dense.shape[0], -1, SIZE)
        exponents = torch.frexp(groups.abs().amax(dim=2))[1] - 3  # the largest magnitude becomes 4 … 8
        exponents = exponents.clamp(-127, 127)
        scaled = groups.double() * 2.0 ** -exponents[..., None].double()
        indices = torch.bucketize(scaled.abs(), torch.tensor(_MIDDLES, dtype=torch.float64)) + 8 * (scaled < 0)
        data = halves(indices.to(torch.uint8).view_as(dense))
        scales = (exponents + 127).to(torch.uint8)
        if self.is_packed:
            return {"weight_blocks": data.view(*scales.shape, SIZE // 2), "weight_scales": scales}
        return {"weight_packed": data, "weight_scale": scales}

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear_mxfp4(x, weight, bias, out_dtype=out_dtype)

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts_mxfp4(x, gate_up, down, routing)

    def refuses_clamped(self, kernels: Kernels) -> str | None:
        missing = missing_kernels(kernels, "clamped_experts_mxfp4")
        return missing and f"{missing}. Use device='cpu'"

    def clamped_experts(
        self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any, form: ClampedForm
    ) -> Tensor:
        return kernels.clamped_experts_mxfp4(x, gate_up, down, routing, form)
