"""Linear layers, among them those that hold several checkpoint tensors in one."""

import torch
from torch import Tensor, nn

from outrider.layers.context import LayerContext


def empty_parameter(*shape: int, context: LayerContext) -> nn.Parameter:
    """An unfilled weight."""
    return nn.Parameter(torch.empty(shape, dtype=context.dtype, device=context.device), requires_grad=False)


class Linear(nn.Module):
    """y = x Wᵀ + b. With `pieces`, W is several checkpoint tensors stacked by rows.

    `pieces` names them and gives their rows: (("q_proj", 64), ("k_proj", 16), ("v_proj", 16)). In the checkpoint
    each stands beside this module, under its own name.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        context: LayerContext,
        *,
        bias: bool = False,
        pieces: tuple[tuple[str, int], ...] = (),
    ) -> None:
        super().__init__()
        assert not pieces or sum(rows for _, rows in pieces) == output_size, f"{pieces} != {output_size} rows"
        self.pieces = pieces
        self._linear = context.kernels.linear
        weight = context.kernels.empty_weight(output_size, input_size, dtype=context.dtype, device=context.device)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = empty_parameter(output_size, context=context) if bias else None

    def forward(self, x: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
        """x [M, input_size] -> [M, output_size], in x's dtype or in out_dtype."""
        return self._linear(x, self.weight, self.bias, out_dtype=out_dtype)
