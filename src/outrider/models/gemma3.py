"""Gemma 3: layers with a window and a rope of their own to one that sees all tokens, four norms in a layer, GeGLU.

Multimodal checkpoints are read for their text model alone, under the names of old releases and of new ones.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import LayerCache
from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import (
    ModelConfig,
    Windows,
    read_architecture,
    read_dense,
    read_ropes_by_kind,
    read_text_part,
    read_windows_by_kind,
)
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.norm import RMSNorm

ARCHITECTURES = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")

_LEFT_OUT = {
    "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}  # fmt: skip
"""Values of keys that released configs leave out."""


class Layer(DecoderLayer):
    """h += norm(attention(norm(h))); h += norm(mlp(norm(h))). post_attention_layernorm is on attention's output."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__(config, context, attention=attention, mlp=mlp)
        size, eps = config.hidden_size, config.norm_eps
        self.pre_feedforward_layernorm = RMSNorm(size, eps, context, plus_one=True)
        self.post_feedforward_layernorm = RMSNorm(size, eps, context, plus_one=True)

    def forward(
        self, x: Tensor, h: Tensor | None, batch: ForwardBatch, cache: LayerCache, attention: StepAttention
    ) -> tuple[Tensor, Tensor, Tensor]:
        normed, entered = (self.input_layernorm(x), x) if h is None else self.input_layernorm.add(x, h)
        attended = self.get_submodule(self.attention_name)(normed, batch, cache, attention)
        attended = self.post_attention_layernorm(attended)
        normed, h = self.pre_feedforward_layernorm.add(attended, entered)
        return self.post_feedforward_layernorm(self.mlp(normed)), h, entered


class Model(CausalLM):
    """`Gemma3ForCausalLM`, and the text part of `Gemma3ForConditionalGeneration`."""

    renames: Mapping[str, str] = {"language_model.model.": "", "language_model.": ""}
    skips: tuple[str, ...] = ("vision_tower.", "multi_modal_projector.")
    qk_norm = True
    embedding_scale: Tensor  # scalar

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        if context.dtype == torch.float16:
            raise UnsupportedError(
                "dtype='float16' is not supported by Gemma 3: its residual stream has values that are too large for it."
                " Use bfloat16, in which it was trained, or float32."
            )
        super().__init__(config, context, max_positions=max_positions)
        scale = torch.tensor(math.sqrt(config.hidden_size), dtype=context.dtype, device=context.device)
        self.register_buffer("embedding_scale", scale, persistent=False)

    def build_layer(self, index: int) -> nn.Module:
        return Layer(self.config, self.context, attention=self.build_attention(index), mlp=self.build_mlp(index))

    def scale_embedded(self, embedded: Tensor) -> Tensor:
        """Times the square root of the width, which is rounded to the model's dtype first."""
        return embedded * self.embedding_scale


def read_config(reader: ConfigReader) -> ModelConfig:
    """The text model of a multimodal config, or a config of the text model alone."""
    read = partial(_read_text, architecture=read_architecture(reader))
    if not reader.has("text_config"):
        return read(reader)
    placeholders = ("boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image")
    return read_text_part(reader, read, model_type="gemma3", placeholders=placeholders)


def _read_text(reader: ConfigReader, *, architecture: str) -> ModelConfig:
    """Soft caps, which these models do not have, are refused."""
    reader.assume(_LEFT_OUT)
    max_positions = reader.integer("max_position_embeddings")
    rope, local_rope = read_ropes_by_kind(
        reader, max_positions=max_positions, theta=1e6, local_theta=1e4, local_key="rope_local_base_freq"
    )
    if rope.rope_type == "linear" and rope.original_max_position_embeddings == max_positions:
        rope = replace(rope, original_max_position_embeddings=int(max_positions / rope.factor))  # stretched by it
    reader.neutral("hidden_act", "gelu_pytorch_tanh", reason="hidden_activation says it")
    config = read_dense(
        reader,
        architecture=architecture,
        model_types=("gemma3_text",),
        windows=_read_windows(reader),
        default_head_dim=256,
        rope=rope,
        hidden_act=reader.choice("hidden_activation", ("gelu_pytorch_tanh",), default="gelu_pytorch_tanh"),
    )
    scalar = reader.number("query_pre_attn_scalar", default=256.0)
    if reader.flag("use_bidirectional_attention"):  # half of sliding_window on each side
        windows = tuple(window and window // 2 * 2 + 1 for window in config.windows)
        config = replace(config, is_causal=False, windows=windows)
    return replace(config, local_rope=local_rope, attention_scale=scalar**-0.5, norm_plus_one=True)


def _read_windows(reader: ConfigReader) -> Windows:
    """A window in all layers but every sixth, or as the config says."""
    names = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = 6
    if reader.has("layer_types"):
        reader.ignore(*names, reason="layer_types names the kind of each layer")
    else:
        pattern = reader.integer(names[0] if reader.has(names[0]) else names[1], default=pattern)
    return read_windows_by_kind(reader, is_sliding=lambda index: bool((index + 1) % pattern), default=4096)
