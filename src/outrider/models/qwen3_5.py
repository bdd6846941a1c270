"""Qwen3.5 and Qwen3.6: three layers of Gated DeltaNet to one of attention, whose output has a gate; dense, or a mixture
of experts beside one that every token goes to.

Multimodal checkpoints are read for their text model alone: text needs nothing else of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import (
    FULL_ATTENTION,
    LINEAR_ATTENTION,
    ModelConfig,
    MoeConfig,
    read_architecture,
    read_dense,
    read_gated_delta,
    read_layer_types,
    read_moe,
    read_num_layers,
    read_text_part,
)
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.gated_delta_net import GatedDeltaNet
from outrider.layers.mtp import MtpForm, MtpModule

ARCHITECTURES = (
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    "Qwen3_5MoeForCausalLM",
)


class Model(CausalLM):
    """`Qwen3_5ForConditionalGeneration` and `Qwen3_5MoeForConditionalGeneration`, the text part."""

    renames: Mapping[str, str] = {"language_model.": ""}
    skips: tuple[str, ...] = ("visual.",)
    qk_norm = True
    mtp = MtpForm(
        prefixes=("mtp.",),
        renames={
            "pre_fc_norm_embedding.": "embedding_norm.",
            "pre_fc_norm_hidden.": "hidden_norm.",
            "layers.0.": "layer.",
            "": "",
        },
    )

    def build_layer(self, index: int) -> nn.Module:
        if not self.config.has_state(index):
            return super().build_layer(index)
        linear, mlp = GatedDeltaNet(self.config, self.context), self.build_mlp(index)
        return DecoderLayer(self.config, self.context, attention=linear, mlp=mlp, attention_name="linear_attn")

    def build_mtp(self) -> MtpModule:
        """The prediction module: its layer always attends."""
        layer = super().build_layer(self.config.num_layers - 1)
        return MtpModule(self.config, self.context, layer=layer, form=self.mtp)


def read_config(reader: ConfigReader) -> ModelConfig:
    """The text model of a multimodal config, or a config of the text model alone."""
    architecture = read_architecture(reader)
    has_experts = "Moe" in architecture
    family = "qwen3_5_moe" if has_experts else "qwen3_5"
    if not reader.has("text_config"):
        return read_hybrid(
            reader, architecture=architecture, model_types=(f"{family}_text", family), has_experts=has_experts
        )
    return read_text_part(
        reader,
        partial(read_hybrid, architecture=architecture, model_types=(f"{family}_text",), has_experts=has_experts),
        model_type=family,
        placeholders=("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    )


def read_hybrid(
    reader: ConfigReader, *, architecture: str, model_types: tuple[str, ...], has_experts: bool
) -> ModelConfig:
    """The keys of a text model that mixes Gated DeltaNet and attention."""
    for key in ("rope_parameters", "rope_scaling"):
        reader.section(key).ignore(
            "mrope_section", "mrope_interleaved", reason="positions of images; text has one for all three streams"
        )
    reader.choice("attn_output_gate", (True,), default=True)
    reader.choice("mamba_ssm_dtype", ("float32",), default="float32")
    reader.choice("output_gate_type", ("swish",), default="swish")
    reader.choice("mtp_use_dedicated_embeddings", (False,), default=False)
    dense = read_dense(
        reader,
        architecture=architecture,
        model_types=model_types,
        moe=_read_experts(reader) if has_experts else None,
        layer_types=_read_layer_types(reader),
        default_head_dim=256,
        default_rotary_share=0.25,
    )
    return replace(
        dense,
        attn_output_gate=True,
        norm_plus_one=True,
        gated_delta=read_gated_delta(reader),
        num_mtp_layers=reader.integer("mtp_num_hidden_layers", default=0, minimum=0),
    )


def _read_experts(reader: ConfigReader) -> MoeConfig:
    """The experts, whose weights sum to one where the config does not say it, and the one that every token goes to."""
    moe = read_moe(reader, is_normalized=True)
    return replace(
        moe, shared_intermediate_size=reader.integer("shared_expert_intermediate_size", default=0, minimum=0)
    )


def _read_layer_types(reader: ConfigReader) -> tuple[str, ...]:
    """Kind of each layer: as the config says, or attention in every `full_attention_interval`th layer."""
    kinds = read_layer_types(reader, supported=(FULL_ATTENTION, LINEAR_ATTENTION))
    if kinds:
        reader.ignore("full_attention_interval", reason="layer_types names the kind of each layer")
        return kinds
    interval = reader.integer("full_attention_interval", default=4)
    numbers = range(1, read_num_layers(reader) + 1)
    return tuple(LINEAR_ATTENTION if number % interval else FULL_ATTENTION for number in numbers)
