"""ModernBERT: rotated positions, norms before each part, gated MLPs, and layers with a window to every third that sees
the whole text, each kind with a rope of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from outrider.attention.batch import ForwardBatch
from outrider.core.config_reader import ConfigReader
from outrider.core.encoder_config import read_encoder, read_encoder_pooler
from outrider.core.errors import ConfigError
from outrider.core.model_config import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    EncoderConfig,
    ModelConfig,
    RopeConfig,
    Windows,
    read_layer_types,
    read_num_layers,
    read_ropes_by_kind,
)
from outrider.core.pooler_config import CLS, MEAN, PoolerConfig
from outrider.layers.context import LayerContext
from outrider.layers.encoder import Encoder, TextAttention
from outrider.layers.linear import Linear
from outrider.layers.mlp import GatedMLP
from outrider.layers.norm import LayerNorm
from outrider.layers.rope import Rope

ARCHITECTURES = ("ModernBertModel", "ModernBertForSequenceClassification")

_IGNORED = {
    "training only: initialisation and dropout": ("initializer_cutoff_factor", "embedding_dropout"),
    "the head that predicts masked tokens": ("decoder_bias", "sparse_prediction", "sparse_pred_ignore_index"),
    "which implementation another library runs": (
        "deterministic_flash_attn",
        "reference_compile",
        "repad_logits_with_grad",
    ),
    "norm_eps says the epsilon of norms": ("layer_norm_eps",),
}
"""Reason -> keys."""


class Layer(nn.Module):
    """h += attention(norm(h)); h += mlp(norm(h)). The first layer reads the embedding, which is normed already."""

    def __init__(
        self, config: ModelConfig, context: LayerContext, *, attention: nn.Module, has_norm: bool, bias: bool
    ) -> None:
        super().__init__()
        self.attn_norm = LayerNorm(config.hidden_size, config.norm_eps, context, bias=bias) if has_norm else None
        self.attn = attention
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps, context, bias=bias)
        self.mlp = GatedMLP(config, context, has_pieces=False)

    def forward(self, h: Tensor, batch: ForwardBatch, plan: Any) -> Tensor:
        """h [M, H] -> [M, H]."""
        normed = h if self.attn_norm is None else self.attn_norm(h)
        h = h + self.attn(normed, batch, plan)
        total: Tensor = h + self.mlp(self.mlp_norm(h))
        return total


class Model(Encoder):
    """`ModernBertModel` and `ModernBertForSequenceClassification`."""

    renames: Mapping[str, str] = {"embeddings.norm.": "embed_norm.", "embeddings.tok_embeddings.": "embed_tokens."}
    parts: Mapping[str, str] = {
        "attn.Wqkv": "attn.qkv_proj",
        "attn.Wo": "attn.o_proj",
        "mlp.Wi": "mlp.gate_up_proj",
        "mlp.Wo": "mlp.down_proj",
    }
    rope: Rope
    local_rope: Rope

    def build_ropes(self, max_positions: int) -> None:
        config = self.config
        assert config.local_rope is not None, "each kind of layer has a rope"
        self.rope = Rope(config.rope, config.rotary_size, max_positions, self.context)
        self.local_rope = Rope(config.local_rope, config.rotary_size, max_positions, self.context)

    def build_layer(self, index: int) -> nn.Module:
        window = self.config.window(index)
        attention = TextAttention(
            self.config,
            self.context,
            rope=self.rope if window is None else self.local_rope,
            window=window,
            has_pieces=False,
        )
        return Layer(self.config, self.context, attention=attention, has_norm=index > 0, bias=self.shape.norm_bias)

    def build_head(self) -> None:
        config, context, bias = self.config, self.context, self.shape.norm_bias
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps, context, bias=bias)
        if self.num_labels:
            self.head = nn.ModuleDict(
                {
                    "dense": Linear(config.hidden_size, config.hidden_size, context, bias=self.shape.head_bias),
                    "norm": LayerNorm(config.hidden_size, config.norm_eps, context, bias=bias),
                }
            )
            self.classifier = Linear(config.hidden_size, self.num_labels, context, bias=True)

    def finish(self, h: Tensor) -> Tensor:
        normed: Tensor = self.final_norm(h)
        return normed

    def pool(self, vectors: Tensor) -> Tensor:
        if not self.num_labels:
            return super().pool(vectors)
        dense = self.context.kernels.gelu(self.head["dense"](vectors))
        return self.classifier(self.head["norm"](dense)).float()


def read_pooler(reader: ConfigReader, *, architecture: str) -> PoolerConfig:
    """A classifier reads the first token, or the mean of all."""
    pooling = reader.choice("classifier_pooling", (CLS, MEAN), default=CLS)
    return read_encoder_pooler(reader, architecture=architecture, pooling=pooling)


def read_config(reader: ConfigReader) -> ModelConfig:
    """A window of local_attention tokens, half of them on each side, in two of three layers."""
    reader.assume({"norm_eps": 1e-5, "max_position_embeddings": 8192})
    max_length = reader.integer("max_position_embeddings")
    reader.neutral("hidden_act", "gelu", reason="hidden_activation says it")
    reader.choice("hidden_activation", ("gelu",), default="gelu")
    reader.ignore("classifier_pooling", reason="the model has no classifier")
    reader.choice("classifier_activation", ("gelu",), default="gelu")
    reader.ignore("position_embedding_type", reason="positions are rotated")
    for reason, keys in _IGNORED.items():
        reader.ignore(*keys, reason=reason)
    encoder = EncoderConfig(
        norm_bias=reader.flag("norm_bias"),
        head_bias=reader.flag("classifier_bias"),
    )
    full, local = _read_ropes(reader, max_length=max_length)
    config = read_encoder(
        reader, model_types=("modernbert",), encoder=encoder, max_length=max_length, eps_key="norm_eps"
    )
    return replace(
        config,
        rope=full,
        local_rope=local,
        windows=_read_windows(reader),
        attention_bias=reader.flag("attention_bias"),
        mlp_bias=reader.flag("mlp_bias"),
    )


def _read_windows(reader: ConfigReader) -> Windows:
    """Half of local_attention on each side, in the layers that layer_types names or that do not begin a group."""
    kinds = read_layer_types(reader, supported=(FULL_ATTENTION, SLIDING_ATTENTION))
    num_layers, key = read_num_layers(reader), "global_attn_every_n_layers"
    if kinds:
        reader.ignore(key, reason="layer_types names the kind of each layer")
    else:
        every = reader.integer(key, default=3)
        kinds = tuple(SLIDING_ATTENTION if index % every else FULL_ATTENTION for index in range(num_layers))
    window = reader.integer("local_attention", default=128) // 2 * 2 + 1
    return tuple(window if kind == SLIDING_ATTENTION else None for kind in kinds)


def _read_ropes(reader: ConfigReader, *, max_length: int) -> tuple[RopeConfig, RopeConfig]:
    """Ropes of the layers without and with a window, in the new spelling or the old one."""
    key = "global_rope_theta"
    theta = reader.number(key, default=160000.0)
    full, local = read_ropes_by_kind(
        reader, max_positions=max_length, theta=theta, local_theta=10000.0, local_key="local_rope_theta"
    )
    if reader.has(key) and full.theta != theta:
        raise ConfigError(f"{reader.said(key)} contradicts rope_parameters, which says {full.theta}. Remove one.")
    return full, local
