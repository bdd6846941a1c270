"""A model's own prediction module: one more layer, which joins a hidden state with the next token.

    u = fc(embedding_norm(E[x_j+1]) ‖ hidden_norm(h_j))        hidden first in some families
    y = norm(layer(u))        logits = the model's head of y, for token j + 2        next pass: h <- y

h is the model's hidden state after its final norm. It uses the model's embedding and head. Sources:
DeepSeek-V3, arXiv 2412.19437; the releases of MiMo-7B and Qwen3-Next. Of several modules, each reads the output of the
one before and the token after; the last one's own output is fed back for further tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec, LayerCache
from outrider.core.model_config import ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.norm import RMSNorm
from outrider.layers.weight_format import find_format


@dataclass(frozen=True, slots=True, kw_only=True)
class MtpForm:
    """Names of the modules in a family's checkpoints, and differences in their arithmetic."""

    prefixes: tuple[str, ...]
    """Leading part of the names of each module's tensors."""
    renames: Mapping[str, str]
    """Leading parts of what follows the prefix -> names inside `MtpModule`; the first match counts."""
    family_prefix: str | None = None
    """Leading part of the names of all modules that a checkpoint may hold; None: there are no others."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Names behind the prefix -> names in the model, of tensors that are copies of the model's own."""
    is_hidden_first: bool = False
    """True if fc takes the hidden state first and the embedding second."""
    has_plain_fc: bool = False
    """True if fc is plain in quantised checkpoints, too."""

    @property
    def all_prefixes(self) -> tuple[str, ...]:
        """Leading parts of the names that the model itself does not load."""
        return self.prefixes if self.family_prefix is None else (self.family_prefix,)


class MtpModule(nn.Module):
    """The weights of the module."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, layer: nn.Module, form: MtpForm) -> None:
        """`layer`: a decoder layer with attention, as the model builds it."""
        super().__init__()
        size, eps, plus_one = config.hidden_size, config.norm_eps, config.norm_plus_one
        self.embedding_norm = RMSNorm(size, eps, context, plus_one=plus_one)
        self.hidden_norm = RMSNorm(size, eps, context, plus_one=plus_one)
        self.fc = Linear(2 * size, size, context, weight_format=find_format("plain") if form.has_plain_fc else None)
        self.layer = layer
        self.norm = RMSNorm(size, eps, context, plus_one=plus_one)
        self.is_hidden_first = form.is_hidden_first

    @property
    def cache_spec(self) -> CacheSpec:
        """The cache that its layer needs for earlier tokens."""
        return cast(CacheSpec, self.layer.cache_spec)

    def forward(
        self, embedded: Tensor, hidden: Tensor, batch: ForwardBatch, cache: LayerCache, attention: StepAttention
    ) -> Tensor:
        """embedded, hidden [T, H] -> [T, H], after the norm."""
        parts = [self.embedding_norm(embedded), self.hidden_norm(hidden)]
        if self.is_hidden_first:
            parts.reverse()
        x, h, _ = self.layer(self.fc(torch.cat(parts, dim=1)), None, batch, cache, attention)
        return self.norm.add(x, h)[0]
