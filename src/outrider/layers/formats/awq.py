"""AWQ in its `gemm` version: weights [in, out], eight outputs in an integer in an order of their own, and zeros."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.layers.grouped_int4 import GroupedInt4, filler, halves, packed_integers, scale_slot, unpacked
from outrider.layers.weight_format import WeightFormat
from outrider.loading.slot import Destination, Slot

PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""The half-byte of an integer that holds each of eight neighbouring outputs."""


@dataclass(frozen=True)
class Format(GroupedInt4):
    """`qweight`, `qzeros`, `scales`."""

    has_zeros: bool = True

    name = "awq"

    @classmethod
    def examples(cls) -> tuple[WeightFormat, ...]:
        return (cls(group_size=64), cls(), cls(group_size=None))

    def slots(
        self, data: Tensor, scales: Tensor, zeros: Tensor | None, order: Tensor | None, input_size: int
    ) -> Mapping[str, Destination]:
        assert zeros is not None, "this format has zeros"
        count, num_groups = scales.shape
        return {
            "qweight": Slot(
                shapes=((input_size, count // 8),),
                dtypes=(torch.int32,),
                fill=filler(data, lambda found: halves(unpacked(found, PLACES).t())),
            ),
            "qzeros": Slot(
                shapes=((num_groups, count // 8),),
                dtypes=(torch.int32,),
                fill=filler(zeros, lambda found: unpacked(found, PLACES).t()),
            ),
            "scales": scale_slot(scales, (num_groups, count), is_transposed=True),
        }

    def packed(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Mapping[str, Tensor]:
        assert zeros is not None, "this format has zeros"
        return {
            "qweight": packed_integers(values.t(), PLACES),
            "qzeros": packed_integers(zeros.t(), PLACES),
            "scales": scales.t(),
        }
