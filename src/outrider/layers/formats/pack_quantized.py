"""4-bit weights of compressed-tensors (W4A16): eight values in an integer, along the input, the lowest bits first."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.layers.grouped_int4 import (
    GroupedInt4,
    filler,
    halves,
    order_slot,
    packed_integers,
    scale_slot,
    unpacked,
)
from outrider.layers.weight_format import WeightFormat
from outrider.loading.slot import Destination, Slot


@dataclass(frozen=True)
class Format(GroupedInt4):
    """`weight_packed`, `weight_scale`, `weight_shape`; zeros are packed along the output."""

    name = "pack_quantized"

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(group_size=32), cls(), cls(group_size=None), cls(has_zeros=True), cls(has_order=True))

    def slots(
        self, data: Tensor, scales: Tensor, zeros: Tensor | None, order: Tensor | None, input_size: int
    ) -> Mapping[str, Destination]:
        count, num_groups = scales.shape
        integers = (torch.int32,)

        def check_shape(found: Tensor) -> None:
            if found.tolist() != [count, input_size]:
                raise ValueError(f"is {found.tolist()}, and config.json asks for {[count, input_size]}.")

        found: dict[str, Destination] = {
            "weight_packed": Slot(
                shapes=((count, input_size // 8),),
                dtypes=integers,
                fill=filler(data, lambda found: halves(unpacked(found))),
            ),
            "weight_scale": scale_slot(scales, (count, num_groups)),
            "weight_shape": Slot(shapes=((2,),), dtypes=(torch.int64, torch.int32), fill=check_shape, is_optional=True),
        }
        if zeros is not None:
            found["weight_zero_point"] = Slot(
                shapes=((count // 8, num_groups),),
                dtypes=integers,
                fill=filler(zeros, lambda found: unpacked(found.t()).t()),
            )
        if order is not None:
            found["weight_g_idx"] = order_slot(order, num_groups, input_size)
        return found

    def packed(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Mapping[str, Tensor]:
        found = {
            "weight_packed": packed_integers(values),
            "weight_scale": scales,
            "weight_shape": torch.tensor(values.shape, dtype=torch.int64),
        }
        if zeros is not None:
            found["weight_zero_point"] = packed_integers(zeros.t()).t()
        if self.has_order:
            found["weight_g_idx"] = torch.arange(values.shape[1], dtype=torch.int32) // (
                values.shape[1] // scales.shape[1]
            )
        return found
