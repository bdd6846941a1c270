"""The common part of the formats with 8 bits and a scale per output row: how they lie in memory and in checkpoints.

In memory every row has a scale, so pieces with one scale each can be stacked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.layers.quantised import FLOATS, check_finite, largest_of, missing_kernels, rounded, scale_of
from outrider.layers.weight_format import Weight, WeightFormat
from outrider.loading.slot import Destination, Slot


@dataclass(frozen=True)
class RowScaled(WeightFormat):
    """Weights and activations of one type; each token has a scale, or all have one from the checkpoint."""

    has_scale_per_tensor: bool = False
    """The files have one scale per tensor, not one per row."""
    is_static: bool = False
    """The files have the scale of activations, `input_scale`. Of pieces that are one layer here, and of all experts,
    the largest counts."""
    is_encoded_here: bool = False
    """The files have no scales: weights are rounded while they are loaded."""

    dtype: ClassVar[torch.dtype]
    """Type of the weights."""
    largest: ClassVar[float]
    """The largest magnitude to which weights and activations are scaled."""

    @property
    def scales_activations_by(self) -> Literal["token", "group"] | None:
        return None if self.is_static else "token"

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(), cls(has_scale_per_tensor=True, is_static=True), cls(is_encoded_here=True))

    def refuses(self, kernels: Kernels) -> str | None:
        return missing_kernels(kernels, *(f"{kind}_{self.name}" for kind in ("empty", "linear", "experts")))

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
            data=self.empty_data(kernels, output_size, input_size, device=device, num_experts=num_experts),
            scales=torch.empty(*experts, output_size, dtype=torch.float32, device=device),
            input_scale=torch.zeros(1, dtype=torch.float32, device=device) if self.is_static else None,
            whole_shape=(output_size, input_size),
        )

    def empty_data(
        self, kernels: Kernels, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None
    ) -> Tensor:
        """Memory for the weights, from the format's kernel."""
        raise NotImplementedError

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        assert weight.scales is not None, "a weight of this format has scales"
        data = weight.data[..., first : first + count, :]
        scales = weight.scales[..., first : first + count]
        if self.is_encoded_here:
            return {"weight": Slot(shapes=(tuple(data.shape),), dtypes=FLOATS, fill=self._encoder(data, scales))}

        def fill_scales(found: Tensor) -> None:
            check_finite(found)
            scales.copy_(found.reshape(-1 if self.has_scale_per_tensor else scales.shape).float())

        experts = tuple(scales.shape[:-1])
        per_tensor, per_row = ((), (1,), (1, 1)), ((*experts, count, 1), (*experts, count))
        shapes = per_tensor if self.has_scale_per_tensor else per_row
        slots: dict[str, Destination] = {
            "weight": data,
            "weight_scale": Slot(shapes=shapes, dtypes=FLOATS, fill=fill_scales),
        }
        if weight.input_scale is not None:
            slots["input_scale"] = Slot(shapes=per_tensor, dtypes=FLOATS, fill=largest_of(weight.input_scale))
        return slots

    def _encoder(self, data: Tensor, scales: Tensor) -> Callable[[Tensor], None]:
        def fill(found: Tensor) -> None:
            check_finite(found)
            found_scales = scale_of(found.abs().amax(dim=-1), self.largest)
            data.copy_(rounded(found, found_scales.unsqueeze(-1), self.dtype, self.largest))
            scales.copy_(found_scales)

        return fill

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        data = tensors["weight"].float()
        if self.is_encoded_here:
            return data
        check_finite(tensors["weight_scale"])
        return data * tensors["weight_scale"].float().view(-1, 1)

    def encode(self, dense: Tensor) -> Mapping[str, Tensor]:
        if self.is_encoded_here:
            return {"weight": dense}
        magnitudes = dense.abs()
        largest = magnitudes.amax() if self.has_scale_per_tensor else magnitudes.amax(dim=1, keepdim=True)
        scales = scale_of(largest, self.largest)
        found = {"weight": rounded(dense, scales, self.dtype, self.largest), "weight_scale": scales.view(-1, 1)}
        if self.has_scale_per_tensor:
            found["weight_scale"] = scales.view(1)
        if self.is_static:
            found["input_scale"] = torch.full((1,), 8.0 / self.largest)
        return found
