"""OLMo 2: norms on the outputs of attention and MLP instead of their inputs, and one over all heads of q and of k."""

from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec, LayerCache
from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense
from outrider.layers.attention import Attention
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.layers.norm import RMSNorm

ARCHITECTURES = ("Olmo2ForCausalLM",)


class Layer(nn.Module):
    """h += norm(attention(h)); h += norm(mlp(h))."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        self.self_attn = cast(Attention, attention)
        self.post_attention_layernorm = RMSNorm(size, eps, context, casts_last=True)
        self.mlp = mlp
        self.post_feedforward_layernorm = RMSNorm(size, eps, context, casts_last=True)

    @property
    def cache_spec(self) -> CacheSpec:
        """The cache that this layer needs for earlier tokens."""
        return self.self_attn.cache_spec

    def forward(
        self, x: Tensor, h: Tensor | None, batch: ForwardBatch, cache: LayerCache, attention: StepAttention
    ) -> tuple[Tensor, Tensor, Tensor]:
        """This layer's addend, its stream, and the stream that went in, summed; see `DecoderLayer.forward`."""
        entered = x if h is None else h + x
        h = entered + self.post_attention_layernorm(self.self_attn(entered, batch, cache, attention))
        return self.post_feedforward_layernorm(self.mlp(h)), h, entered


class Model(CausalLM):
    """`Olmo2ForCausalLM`."""

    whole_qk_norm = True

    def build_layer(self, index: int) -> nn.Module:
        return Layer(self.config, self.context, attention=self.build_attention(index), mlp=self.build_mlp(index))


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys."""
    return replace(read_dense(reader, model_types=("olmo2",)), norm_casts_last=True)
