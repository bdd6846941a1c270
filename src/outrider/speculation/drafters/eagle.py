"""EAGLE-1 and EAGLE-2: one transformer layer that continues the target's last hidden states, token by token.

    u = fc(E[x_j+1] ‖ h_j)          a = u + Attn(u), with no norm before it
    y = a + MLP(post_attention_layernorm(a))          logits = the target's head of y          next pass: h <- y

h_j is the target's hidden state after its final norm; y gets no norm. The versions differ in how a tree of drafts is
built, which is not done here: drafts are a chain. Source: Li, Wei, Zhang, Zhang, arXiv 2401.15077 and 2406.16858, and
the format of their release. Everything about indices, KV and blocks is in `speculation/chain.py`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.paged_kv import LayerKV, PagedKV
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.ignored_keys import ignore_leftovers
from outrider.core.model_config import ModelConfig, read_dense
from outrider.core.quantization.read import read_quantization
from outrider.layers.attention import Attention
from outrider.layers.context import LayerContext
from outrider.layers.decoder import Hidden
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP
from outrider.layers.norm import RMSNorm
from outrider.layers.rope import Rope
from outrider.loading.hf import open_config
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter import DrafterContext
from outrider.speculation.head import Embed, Head, HeadFiles, check_one_layer, load_head
from outrider.speculation.options import check_directory

_MODEL_TYPES = ("llama", "qwen2", "eagle")
"""Layers of these models differ only in their biases, which the config states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "eagle"."""

    model: str
    """Directory of the head."""

    def __post_init__(self) -> None:
        check_directory("model", self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class EagleConfig:
    """Shape of one head."""

    layer: ModelConfig
    """Shape of the head's layer: its own rope, MLP and eps, the target's width."""
    has_output_bias: bool
    """The output projection of attention has a bias."""
    has_fc_bias: bool
    """fc has a bias if weights are random; otherwise the files decide."""


class HeadLayer(nn.Module):
    """The layer of the head: a decoder layer without its first norm."""

    def __init__(self, config: EagleConfig, context: LayerContext, *, rope: Rope) -> None:
        super().__init__()
        layer = config.layer
        self.self_attn = Attention(layer, context, rope=rope, output_bias=config.has_output_bias)
        self.post_attention_layernorm = RMSNorm(layer.hidden_size, layer.norm_eps, context)
        self.mlp = GatedMLP(layer, context)

    @property
    def cache_spec(self) -> PagedKV:
        """Shape of the layer's keys and values."""
        return self.self_attn.cache_spec

    def forward(self, x: Tensor, batch: ForwardBatch, cache: LayerKV, attention: StepAttention) -> Tensor:
        """x [T, H] -> [T, H]."""
        attended = self.self_attn(x, batch, cache, attention)
        normed, residual = self.post_attention_layernorm.add(attended, x)
        return residual + self.mlp(normed)


class EagleHead(Head):
    """The weights of a head, named as in the checkpoint."""

    def __init__(
        self,
        config: EagleConfig,
        context: LayerContext,
        *,
        max_positions: int,
        embed: Embed | None,
        has_fc_bias: bool,
    ) -> None:
        super().__init__(config.layer, context, embed=embed)
        size = config.layer.hidden_size
        self.fc = Linear(2 * size, size, context, bias=has_fc_bias)
        rope = Rope(config.layer.rope, config.layer.head_dim, max_positions, context)
        self.layers = nn.ModuleList([HeadLayer(config, context, rope=rope)])


class Drafter(ChainDrafter):
    """`method: "eagle"`: drafts with an EAGLE-1 or EAGLE-2 head."""

    def __init__(self, context: DrafterContext) -> None:
        options: Options = context.options
        self.config = read_eagle_config(open_config(options.model), target=context.target_config)
        layer = self.config.layer
        super().__init__(context, feature_size=layer.hidden_size)
        self._target = context.target
        self._head = load_head(
            options.model, partial(_make_head, self.config, context), layer=layer, context=context, renames={}
        )
        self._token_ids = torch.arange(context.target_config.vocab_size, device=context.device)

    @property
    def cache_specs(self) -> tuple[PagedKV, ...]:
        return tuple(cast(HeadLayer, layer).cache_spec for layer in self._head.layers)

    @property
    def bytes_per_step(self) -> int:
        """The layer and the target's head in every pass; only single rows of the embedding are read."""
        sizes = {name: parameter.nbytes for name, parameter in self._head.named_parameters()}
        every = sum(size for name, size in sizes.items() if not name.startswith("embed_tokens"))
        return self.num_drafts * (every + self._target.lm_head.num_bytes)

    @property
    def draft_token_ids(self) -> Tensor:
        return self._token_ids

    def features(self, hidden: Hidden) -> Tensor:
        return hidden.last

    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        (layer,) = self._head.layers
        x = self._head.fc(torch.cat([self._head.embed(batch), features], dim=1))
        return layer(x, batch, self.caches[0], self.caches.begin(batch))

    def draft_logits(self, state: Tensor) -> Tensor:
        return self._target.logits(state)


def read_eagle_config(reader: ConfigReader, *, target: ModelConfig) -> EagleConfig:
    """`reader` reads the head's config.json. Variants that are not supported are refused by name."""
    if reader.is_object("model"):  # a wrapper that some tools write
        reader.choice("model_type", ("eagle",))
        reader.ignore("architectures", reason="the method says what kind of head it is")
        reader.neutral("truncated_vocab_size", reason="not set")
        ignore_leftovers(reader)
        layer_reader = reader.section("model")
    else:
        layer_reader = reader
    if layer_reader.has("speculators_model_type"):
        raise UnsupportedError(
            f"{layer_reader.said('speculators_model_type')} is not supported by method 'eagle'. Use a head in the"
            " format of its release."
        )
    is_eagle3 = any("eagle3" in name.lower() for name in layer_reader.texts("architectures"))
    if is_eagle3 or "draft_vocab_size" in layer_reader.keys:
        raise ConfigError(f"{reader.where} describes an EAGLE-3 head, not one for method 'eagle'. Use method 'eagle3'.")
    layer = read_dense(layer_reader, model_types=_MODEL_TYPES, architecture="Eagle", has_mlp_bias=True)
    has_qkv_bias = layer_reader.flag("qkv_bias")
    has_fc_bias = layer_reader.flag("bias", default=True)
    layer = replace(layer, quantization=read_quantization(reader))
    reader.finish()
    check_one_layer(layer, reader)
    if layer.hidden_size != target.hidden_size:
        raise ConfigError(
            f"the drafter reads hidden states of width {layer.hidden_size} and the target has {target.hidden_size}. "
            "A head drafts for the target it was trained on."
        )
    if layer.vocab_size < target.vocab_size:
        raise ConfigError(
            f"the drafter's vocab_size={layer.vocab_size} is less than the target's {target.vocab_size}. "
            "A head drafts for the target it was trained on."
        )
    return EagleConfig(
        layer=replace(layer, attention_bias=layer.attention_bias or has_qkv_bias),
        has_output_bias=layer.attention_bias,
        has_fc_bias=has_fc_bias,
    )


def _make_head(config: EagleConfig, context: DrafterContext, files: HeadFiles) -> EagleHead:
    return EagleHead(
        config,
        files.layers,
        max_positions=context.max_model_len,
        embed=files.embed,
        has_fc_bias="fc.bias" in files.names if files.names else config.has_fc_bias,
    )
