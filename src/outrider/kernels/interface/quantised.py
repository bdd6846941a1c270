"""Products with quantised weights: the kernels that a weight format needs. A stack may lack any of them, and a model in
a format whose kernels are missing is refused before it takes memory.

Legend: M tokens, K input width, N output width, E experts, I width of a gated MLP, G groups of 128 elements of K.

Exactness. A row of x is quantised by itself, and a stack may choose the order in which it adds, but not by the number
of rows. The value of an element before it is rounded to e4m3 or int8 is x / scale in fp32, never x × (1 / scale); it is
cut to the range of the type and rounded to nearest, ties to even. A scale is the largest magnitude (at least 1e-12)
divided by 448 or 127, in fp32. A sum of products is fp32, or exact for int8; it is multiplied by the scales in fp32,
rounded once to the dtype of the output, and then the bias is added as in `linear`.
"""

from typing import Protocol

import torch
from torch import Tensor

from outrider.kernels.interface.model import Routing


class QuantisedMatrix(Protocol):
    """A matrix [N, K], or one for each of E experts; shapes of one matrix are given below."""

    @property
    def data(self) -> Tensor:
        """[N, K], or the layout of the stack's own `empty_…`."""

    @property
    def scales(self) -> Tensor | None:
        """fp32: [N], or by block [⌈N / 128⌉, ⌈K / 128⌉], or by group [N, K / group size]."""

    @property
    def zeros(self) -> Tensor | None:
        """Values that stand for zero, by group [N, K / group size]; None: the middle of the range."""

    @property
    def input_scale(self) -> Tensor | None:
        """[1] fp32, one scale for all activations; None: each token has its own."""

    @property
    def order(self) -> Tensor | None:
        """[K] int32, group of each column; None: groups are contiguous."""

    @property
    def whole_shape(self) -> tuple[int, int]:
        """(N, K) of the whole layer, which the order of summation follows."""

    def expert(self, index: int) -> "QuantisedMatrix":
        """The matrix of one expert."""


class QuantisedKernels(Protocol):
    """Kernels of formats. `empty_…` returns unfilled memory [N, K] or [E, N, K] in the layout that the products read
    fastest; it is filled through views of rows, from which copies of the stored type come."""

    def empty_fp8(
        self, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None
    ) -> Tensor:
        """e4m3."""

    def linear_fp8(
        self, x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """x [M, K], e4m3 weight with scales [N] -> [M, N]. Σ_k q_mk w_nk, times (scale of m × scale of n)."""

    def experts_fp8(self, x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
        """`experts` with both products as in `linear_fp8`; the input of down is quantised again, row by row."""

    def empty_int8(
        self, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None
    ) -> Tensor:
        """int8."""

    def linear_int8(
        self, x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """x [M, K], int8 weight with scales [N] -> [M, N], as `linear_fp8`; the sum of products is exact."""

    def experts_int8(self, x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
        """`experts` with both products as in `linear_int8`."""

    def empty_int4(
        self, output_size: int, input_size: int, *, device: torch.device, num_experts: int | None = None
    ) -> Tensor:
        """uint8 [N, K / 2]: two values of 0 … 15 in a byte, the one of the lower column in the lower half."""

    def linear_int4(
        self, x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """x [M, K], 4-bit weight with scales by group -> [M, N].

        An element of the weight is (value - zero) × scale in fp32, rounded to x's dtype; then this is `linear`. The
        zero is 8 where the weight has no `zeros` [N, K / group size] uint8. A column's group is its place / group size,
        or what `order` says.
        """

    def experts_int4(self, x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
        """`experts` with both products as in `linear_int4`."""

    def linear_mxfp4(
        self, x: Tensor, weight: QuantisedMatrix, bias: Tensor | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """x [M, K], e2m1 weight in the layout of `empty_int4` -> [M, N].

        scales [N, K / 32] uint8 hold exponents: an element is value × 2 ^ (exponent - 127), exact in bfloat16 and
        float32; then this is `linear`.
        """

    def experts_mxfp4(self, x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing) -> Tensor:
        """`experts` with both products as in `linear_mxfp4`."""

    def linear_fp8_block(
        self,
        x: Tensor,
        weight: QuantisedMatrix,
        bias: Tensor | None = None,
        *,
        out_dtype: torch.dtype | None = None,
        has_power_of_two_scales: bool = False,
    ) -> Tensor:
        """x [M, K], e4m3 weight with scales by block -> [M, N].

        Each group of 128 columns of a row of x has its own scale. The sum of a group's products is multiplied by
        (scale of the group × scale of the block), and these are added in ascending order of groups, in fp32.
        has_power_of_two_scales: a group's scale is rounded up to a power of two.
        """

    def experts_fp8_block(
        self,
        x: Tensor,
        gate_up: QuantisedMatrix,
        down: QuantisedMatrix,
        routing: Routing,
        *,
        has_power_of_two_scales: bool = False,
    ) -> Tensor:
        """`experts` with both products as in `linear_fp8_block`."""
