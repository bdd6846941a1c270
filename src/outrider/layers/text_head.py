"""Linear layers on the vector of a text, behind its pooling: the modules `Dense` of sentence-transformers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from outrider.core.pooler_config import TANH, Dense
from outrider.layers.context import LayerContext
from outrider.layers.pooling_head import Score


class TextHead(nn.Module):
    """One linear layer after the other, each with its activation."""

    def __init__(self, layers: Sequence[Dense], context: LayerContext) -> None:
        super().__init__()
        self._activates = [layer.activation == TANH for layer in layers]
        for index, layer in enumerate(layers):
            self.add_module(str(index), Score(layer.in_features, layer.out_features, context, bias=layer.has_bias))

    def forward(self, x: Tensor) -> Tensor:
        """x [M, in_features of the first] -> [M, out_features of the last] fp32."""
        for linear, activates in zip(self.children(), self._activates, strict=True):
            x = linear(x)
            if activates:
                x = torch.tanh(x)
        return x
