"""Linear layers, including those that hold several checkpoint tensors in one matrix."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.weight_format import WeightFormat


def empty_parameter(*shape: int, context: LayerContext) -> nn.Parameter:
    """An unfilled parameter of the context's dtype."""
    return nn.Parameter(torch.empty(shape, dtype=context.dtype, device=context.device), requires_grad=False)


class Linear(nn.Module):
    """y = x Wᵀ + b. With `pieces`, W is several checkpoint tensors stacked by rows.

    `pieces` lists (name, number of rows): (("q_proj", 64), ("k_proj", 16), ("v_proj", 16)). In the checkpoint each
    piece is a sibling of this module, under its own name. The weight format says which tensors a piece has.
    """

    takes_whole = False
    """A checkpoint holds the pieces, never the stacked tensor."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        context: LayerContext,
        *,
        bias: bool = False,
        pieces: tuple[tuple[str, int], ...] = (),
        weight_format: WeightFormat | None = None,
    ) -> None:
        """weight_format: overrides that of the context, for layers that no checkpoint quantises."""
        super().__init__()
        assert not pieces or sum(rows for _, rows in pieces) == output_size, f"{pieces} != {output_size} rows"
        self.pieces = pieces
        self.output_size = output_size
        self._kernels = context.kernels
        self._weight = (weight_format or context.weight_format).empty(
            context.kernels, output_size, input_size, dtype=context.dtype, device=context.device
        )
        self._linear = self._weight.format.linear
        for name, tensor in self._weight.format.rows(self._weight, 0, output_size).items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self.bias = empty_parameter(output_size, context=context) if bias else None

    def forward(self, x: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
        """x [M, input_size] -> [M, output_size], in x's dtype or in out_dtype."""
        return self._linear(self._kernels, x, self._weight, self.bias, out_dtype=out_dtype)

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Tensor]]:
        """For each parameter, its parts by their names in the checkpoint; none without pieces."""
        parent = prefix.rpartition(".")[0]
        found: dict[str, dict[str, Tensor]] = {}
        first = 0
        for piece, rows in self.pieces:
            name = f"{parent}.{piece}" if parent else piece
            views = dict(self._weight.format.rows(self._weight, first, rows))
            if self.bias is not None:
                views["bias"] = self.bias.data[first : first + rows]
            for parameter, view in views.items():
                found.setdefault(parameter, {})[f"{name}.{parameter}"] = view
            first += rows
        return found
