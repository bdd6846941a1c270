"""The common part of the formats with 4-bit weights in groups: memory, products, rounding. They differ in their files.

    element = (value - zero) × scale        value, zero 0 … 15; the zero is 8 in a symmetric format

In memory two values share a byte, and every group of a row's columns has a scale in fp32. Activations stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels
from outrider.layers.quantised import FLOATS, check_finite, missing_kernels
from outrider.layers.weight_format import Weight, WeightFormat
from outrider.loading.slot import Destination, Slot


@dataclass(frozen=True)
class GroupedInt4(WeightFormat):
    """4-bit weights with a scale, and a zero, per group of columns of a row."""

    group_size: int | None = 128
    """Columns of a group; None: a group for each row."""
    has_zeros: bool = False
    """Groups have zeros of their own; without them the zero is 8."""
    has_order: bool = False
    """The files say the group of each column (act-order)."""

    scales_activations_by = None

    def refuses(self, kernels: Kernels) -> str | None:
        return missing_kernels(kernels, "empty_int4", "linear_int4", "experts_int4")

    def refuses_shape(self, output_size: int, input_size: int, *, is_expert: bool) -> str | None:
        if input_size % (self.group_size or 1):
            return f"groups of {self.group_size} do not divide an input of {input_size}"
        if input_size % 8 or output_size % 8:
            return (
                f"[{output_size}, {input_size}] does not divide by 8, the number of values in an integer of the files"
            )
        if is_expert and self.has_order:
            return "experts whose columns have an order of their own are not computed"
        return None

    def can_join(self, rows: tuple[int, ...]) -> bool:
        """The order of the columns belongs to one piece."""
        return not self.has_order

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
        groups = (*experts, output_size, self.num_groups(input_size))
        return Weight(
            format=self,
            data=kernels.empty_int4(output_size, input_size, device=device, num_experts=num_experts),
            scales=torch.empty(groups, dtype=torch.float32, device=device),
            zeros=torch.empty(groups, dtype=torch.uint8, device=device) if self.has_zeros else None,
            order=torch.empty(input_size, dtype=torch.int32, device=device) if self.has_order else None,
            whole_shape=(output_size, input_size),
        )

    def num_groups(self, input_size: int) -> int:
        """Groups of a row."""
        return 1 if self.group_size is None else input_size // self.group_size

    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        if weight.data.ndim > 2:
            return {}  # files hold experts one by one
        assert weight.scales is not None, "a weight of this format has scales"
        part = slice(first, first + count)
        zeros = weight.zeros[part] if weight.zeros is not None else None
        return self.slots(weight.data[part], weight.scales[part], zeros, weight.order, weight.whole_shape[1])

    def slots(
        self, data: Tensor, scales: Tensor, zeros: Tensor | None, order: Tensor | None, input_size: int
    ) -> Mapping[str, Destination]:
        """Destinations of the tensors of files. data [n, K / 2], scales and zeros [n, groups], order [K]."""
        raise NotImplementedError

    def encode(self, dense: Tensor) -> Mapping[str, Tensor]:
        values, scales, zeros = self.rounded(dense)
        return self.packed(values, scales, zeros)

    def packed(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Mapping[str, Tensor]:
        """values [N, K], scales and zeros [N, groups] -> the tensors of files."""
        raise NotImplementedError

    def rounded(self, dense: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """dense [N, K] -> values [N, K] 0 … 15, scales [N, groups] in dense's dtype, zeros [N, groups] or None."""
        output_size, input_size = dense.shape
        groups = dense.float().view(output_size, self.num_groups(input_size), -1)
        if self.has_zeros:
            low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
            scales = ((high - low) / 15).clamp(min=1e-6).to(dense.dtype)
            zeros = (-low / scales.float()).round().clamp(0, 15)
        else:
            scales = (groups.abs().amax(dim=2) / 7.5).clamp(min=1e-6).to(dense.dtype)
            zeros = torch.full_like(scales, 8, dtype=torch.float32)
        values = (groups / scales.float()[..., None] + zeros[..., None]).round().clamp(0, 15)
        return values.view_as(dense).to(torch.uint8), scales, zeros.to(torch.uint8) if self.has_zeros else None

    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        return kernels.linear_int4(x, weight, bias, out_dtype=out_dtype)

    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        return kernels.experts_int4(x, gate_up, down, routing)


def scale_slot(scales: Tensor, shape: tuple[int, ...], *, is_transposed: bool = False) -> Slot:
    """A slot of floating-point scales."""

    def fill(found: Tensor) -> None:
        check_finite(found)
        scales.copy_(found.t() if is_transposed else found)

    return Slot(shapes=(shape,), dtypes=FLOATS, fill=fill)


def order_slot(order: Tensor | None, num_groups: int, input_size: int) -> Slot:
    """A slot of the group of each column; where the format has no order, they must be the contiguous ones."""

    def fill(found: Tensor) -> None:
        if int(found.min()) < 0 or int(found.max()) >= num_groups:
            raise ValueError(f"names groups outside of 0 … {num_groups - 1}. Quantise the model again.")
        if order is not None:
            order.copy_(found)
        elif not torch.equal(found.long(), torch.arange(input_size) // (input_size // num_groups)):
            raise ValueError("has an order of columns, and the config says that there is none. Correct desc_act.")

    return Slot(shapes=((input_size,),), dtypes=(torch.int32, torch.int64), fill=fill, is_optional=order is None)


def unpacked(integers: Tensor, places: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """int32 [R, C] -> uint8 [R, 8 × C]: value j of an integer is the half-byte at place places[j], 0 the lowest."""
    shifts = torch.tensor([4 * place for place in places], dtype=torch.int32)
    return (integers.unsqueeze(-1) >> shifts).bitwise_and(15).flatten(1).to(torch.uint8)


def packed_integers(values: Tensor, places: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """uint8 [R, 8 × C] -> int32 [R, C], what `unpacked` undoes."""
    shifts = torch.tensor([4 * place for place in places], dtype=torch.int64)
    wide = (values.long().view(values.shape[0], -1, 8) << shifts).sum(dim=-1)
    return torch.where(wide >= 1 << 31, wide - (1 << 32), wide).to(torch.int32)


def halves(values: Tensor) -> Tensor:
    """uint8 [N, K] of 0 … 15 -> uint8 [N, K / 2], the memory layout: lower columns in lower halves."""
    return values[:, 0::2] | (values[:, 1::2] << 4)


def filler(destination: Tensor, read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """A fill that stores what `read` makes of the file's tensor."""

    def fill(found: Tensor) -> None:
        destination.copy_(read(found))

    return fill
