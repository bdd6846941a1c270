"""GPTQ with 4 bits: eight inputs in an integer, the lowest bits first; columns may have an order (`desc_act`).

Zeros of the first version of the files are stored one too small.
"""

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
    """`qweight`, `qzeros`, `scales`, `g_idx`. Symmetric files have zeros, too: all of them are 8."""

    zero_offset: int = 1
    """Number that is added to stored zeros: 1 in files of the first version, 0 in those of the second."""

    name = "gptq"

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (
            cls(group_size=32),
            cls(),
            cls(group_size=None),
            cls(has_zeros=True),
            cls(has_order=True, has_zeros=True, zero_offset=0),
        )

    def slots(
        self, data: Tensor, scales: Tensor, zeros: Tensor | None, order: Tensor | None, input_size: int
    ) -> Mapping[str, Destination]:
        count, num_groups = scales.shape

        def fill_zeros(found: Tensor) -> None:
            stored = unpacked(found).t()
            if zeros is None and not bool((stored + self.zero_offset == 8).all()):
                raise ValueError("has zeros other than 8, and the config says that they are symmetric. Correct sym.")
            if int(stored.max()) + self.zero_offset > 15:
                raise ValueError("has a zero above 15, which tools read in different ways. Quantise the model again.")
            if zeros is not None:
                zeros.copy_(stored + self.zero_offset)

        return {
            "qweight": Slot(
                shapes=((input_size // 8, count),),
                dtypes=(torch.int32,),
                fill=filler(data, lambda found: halves(unpacked(found.t()))),
            ),
            "qzeros": Slot(shapes=((num_groups, count // 8),), dtypes=(torch.int32,), fill=fill_zeros),
            "scales": scale_slot(scales, (num_groups, count), is_transposed=True),
            "g_idx": order_slot(order, num_groups, input_size),
        }

    def packed(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Mapping[str, Tensor]:
        stored = torch.full(scales.shape, 8) if zeros is None else zeros.long().clamp(min=self.zero_offset)
        return {
            "qweight": packed_integers(values).t(),
            "qzeros": packed_integers(stored.t() - self.zero_offset),
            "scales": scales.t(),
            "g_idx": torch.arange(values.shape[1], dtype=torch.int32) // (values.shape[1] // scales.shape[1]),
        }
