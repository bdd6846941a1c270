"""Token embedding and the head that turns hidden states into logits."""

import torch
from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.linear import empty_parameter
from outrider.layers.weight_format import Weight, find_format


class Embedding(nn.Module):
    """The table of token embeddings."""

    def __init__(self, vocab_size: int, size: int, context: LayerContext) -> None:
        super().__init__()
        self._embedding = context.kernels.embedding
        self.weight = empty_parameter(vocab_size, size, context=context)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids [M] int64 -> [M, size]."""
        return self._embedding(token_ids, self.weight)


class LMHead(nn.Module):
    """Logits in fp32. Tied, its weight is the embedding's own tensor."""

    def __init__(
        self, hidden_size: int, vocab_size: int, context: LayerContext, *, tied_to: Embedding | None = None
    ) -> None:
        super().__init__()
        plain = find_format("plain")  # logits are fp32 products of the model's own dtype, in every checkpoint so far
        if tied_to is None:
            self._weight = plain.empty(
                context.kernels, vocab_size, hidden_size, dtype=context.dtype, device=context.device
            )
            self.weight = nn.Parameter(self._weight.data, requires_grad=False)
        else:
            self.weight = tied_to.weight
            self._weight = Weight(format=plain, data=self.weight.data, whole_shape=(vocab_size, hidden_size))
        self._kernels = context.kernels
        self._linear = plain.linear

    def forward(self, x: Tensor) -> Tensor:
        """x [S, hidden_size] -> [S, vocab_size] fp32."""
        return self._linear(self._kernels, x, self._weight, None, out_dtype=torch.float32)
