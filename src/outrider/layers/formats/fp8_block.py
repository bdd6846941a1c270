"""e4m3 weights with a scale per block of 128 × 128; e4m3 activations with a scale per 128 columns of a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels import Kernels
from outrider.layers.quantised import (
    E4M3_LARGEST,
    FLOATS,
    check_finite,
    missing_kernels,
    next_power_of_two,
    rounded,
    scale_of,
)
from outrider.layers.weight_format import Weight, WeightFormat
from outrider.loading.slot import Destination, Slot

SIZE = 128
"""Rows and columns of a block; the last ones of a matrix may be smaller."""


@dataclass(frozen=True)
class Format(WeightFormat):
    """DeepSeek's and Qwen's FP8, and FP8_BLOCK of compressed-tensors."""

    scale_name: str = "weight_scale"
    """Name of the scales in the files; in all of them W = weight × scale."""
    has_power_of_two_scales: bool = False
    """Scales are rounded up to powers of two (ue8m0, DeepSeek-V3.1); those of weights are so in the files."""

    name = "fp8_block"

    @property
    def scales_activations_by(self) -> Literal["token", "group"] | None:
        return "group"

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(), cls(has_power_of_two_scales=True))

    def refuses(self, kernels: Kernels) -> str | None:
        return missing_kernels(kernels, "empty_fp8", "linear_fp8_block", "experts_fp8_block")

    def refuses_shape(self, output_size: int, input_size: int, *, is_expert: bool) -> str | None:
        if is_expert and (output_size % SIZE or input_size % SIZE):
            return f"experts of [{output_size}, {input_size}] do not divide by blocks of {SIZE}"
        return None

    def can_join(self, rows: tuple[int, ...]) -> bool:
        """A block belongs to one piece."""
        return all(count % SIZE == 0 for count in rows[:-1])

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
            data=kernels.empty_fp8(output_size, input_size, device=device, num_experts=num_experts),
            scales=torch.empty(*experts, _blocks(output_size), _blocks(input_size), dtype=torch.float32, device=device),
            whole_shape=(output_size, input_size),
        )

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        assert weight.scales is not None and first % SIZE == 0, f"row {first} does not begin a block"
        scales = weight.scales[..., first // SIZE : _blocks(first + count), :]

        def fill_scales(found: Tensor) -> None:
            check_finite(found)
            scales.copy_(found)

        return {
            "weight": weight.data[..., first : first + count, :],
            self.scale_name: Slot(shapes=(tuple(scales.shape),), dtypes=FLOATS, fill=fill_scales),
        }

    def encode(self, dense: Tensor) -> Mapping[str, Tensor]:
        output_size, input_size = dense.shape
        tiles = pad(dense.float(), (0, -input_size % SIZE, 0, -output_size % SIZE))
        tiles = tiles.view(_blocks(output_size), SIZE, _blocks(input_size), SIZE)
        scales = scale_of(tiles.abs().amax(dim=(1, 3)), E4M3_LARGEST)
        scales = next_power_of_two(scales) if self.has_power_of_two_scales else scales
        data = rounded(tiles, scales[:, None, :, None], torch.float8_e4m3fn, E4M3_LARGEST)
        data = data.view(_blocks(output_size) * SIZE, -1)[:output_size, :input_size].contiguous()
        return {"weight": data, self.scale_name: scales}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        data, scales = tensors["weight"].float(), tensors[self.scale_name].float()
        check_finite(scales)
        wide = scales.repeat_interleave(SIZE, dim=0)[: data.shape[0]].repeat_interleave(SIZE, dim=1)
        return data * wide[:, : data.shape[1]]

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear_fp8_block(
            x, weight, bias, out_dtype=out_dtype, has_power_of_two_scales=self.has_power_of_two_scales
        )

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts_fp8_block(
            x, gate_up, down, routing, has_power_of_two_scales=self.has_power_of_two_scales
        )


def _blocks(size: int) -> int:
    return -(-size // SIZE)
