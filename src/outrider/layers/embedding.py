"""Token embedding and the head that turns hidden states into logits."""

import torch
from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear, empty_parameter
from outrider.layers.weight_format import find_format


class Embedding(nn.Module):
    """The table of token embeddings."""

    def __init__(self, vocab_size: int, size: int, context: LayerContext) -> None:
        super().__init__()
        self._kernels = context.kernels
        self.weight = empty_parameter(vocab_size, size, context=context)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids [M] int64 -> [M, size]."""
        return self._kernels.embedding(token_ids, self.weight)


class LMHead(Linear):
    """Logits in fp32. Tied, its weight is the embedding's own tensor. Only a checkpoint can ask to quantise it."""

    def __init__(
        self, hidden_size: int, vocab_size: int, context: LayerContext, *, tied_to: Embedding | None = None
    ) -> None:
        super().__init__(
            hidden_size,
            vocab_size,
            context,
            weight_format=None if context.assigns_formats else find_format("plain"),
            tied_to=tied_to.weight if tied_to is not None else None,
        )

    def forward(self, x: Tensor, *, out_dtype: torch.dtype | None = torch.float32) -> Tensor:
        """x [S, hidden_size] -> [S, vocab_size] fp32."""
        return super().forward(x, out_dtype=out_dtype)
