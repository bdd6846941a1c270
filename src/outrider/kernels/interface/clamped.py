"""Experts with biases and a clamped gate (gpt-oss). A stack may lack these kernels, and a model that needs
them is refused before it takes memory.

Legend as in `model.py`. Exactness: gate, up and the row of down are rounded to x's dtype, then the bias is added as in
`linear`. The gate is fp32 from there on, and rounded once.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from outrider.kernels.interface.model import Routing
from outrider.kernels.interface.quantised import QuantisedMatrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClampedForm:
    """Biases of such experts, and the numbers of their gate."""

    gate_up_bias: Tensor  # [E, 2I], gate first
    down_bias: Tensor  # [E, K]
    alpha: float
    limit: float


class ClampedKernels(Protocol):
    """`experts` with biases, whose inner row is gate × sigmoid(alpha × gate) × (up + 1): gate is cut to at most limit
    before, and up to ± limit."""

    def clamped_experts(self, x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing, form: ClampedForm) -> Tensor:
        """x [M, K], gate_up [E, 2I, K], down [E, K, I] -> [M, K], the weighted sum of each token's experts."""

    def clamped_experts_mxfp4(
        self, x: Tensor, gate_up: QuantisedMatrix, down: QuantisedMatrix, routing: Routing, form: ClampedForm
    ) -> Tensor:
        """`clamped_experts` with both products as in `linear_mxfp4`."""
