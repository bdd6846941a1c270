"""DeepSeek-V2: latent attention, and experts that a softmax chooses, in groups or freely, beside shared ones."""

import math
from dataclasses import replace

from torch import nn

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.core.model_config import (
    MAX_EXPERTS,
    GroupedRouting,
    LatentConfig,
    ModelConfig,
    MoeConfig,
    RopeConfig,
    read_dense,
    read_num_layers,
    read_rope,
)
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.layers.grouped_moe import GroupedMoE
from outrider.layers.latent_attention import LatentAttention, missing_latent_kernels
from outrider.layers.mlp import GatedMLP

ARCHITECTURES = ("DeepseekV2ForCausalLM",)

_GREEDY, _GROUPS = "greedy", "group_limited_greedy"


class Model(CausalLM):
    """`DeepseekV2ForCausalLM`."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        if (reason := missing_latent_kernels(context)) is not None:
            raise UnsupportedError(
                f"{config.architecture} has latent attention: {reason}. Run it on a CPU (device='cpu')."
            )
        super().__init__(config, context, max_positions=max_positions)

    def build_attention(self, index: int) -> nn.Module:
        return LatentAttention(self.config, self.context, rope=self.rope)

    def build_mlp(self, index: int) -> nn.Module:
        moe = self.config.moe
        is_dense = moe is None or index in moe.dense_layers
        return GatedMLP(self.config, self.context) if is_dense else GroupedMoE(self.config, self.context)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Normalised weights are refused: no release has them, and the tools that read the key differ in what follows."""
    reader.choice("scoring_func", ("softmax",), default="softmax")
    method = reader.choice("topk_method", (_GREEDY, _GROUPS), default=_GREEDY)
    reader.choice("norm_topk_prob", (False,), default=False)
    if method == _GREEDY:
        reader.ignore("n_group", "topk_group", reason="topk_method says that experts are chosen freely")
    moe = read_experts(
        reader, scoring="softmax", has_groups=method == _GROUPS, has_bias=False, is_normalized=False, first_dense=0
    )
    return read_latent_model(reader, model_types=("deepseek_v2",), moe=moe, is_interleaved=True)


def read_experts(
    reader: ConfigReader, *, scoring: str, has_groups: bool, has_bias: bool, is_normalized: bool, first_dense: int
) -> MoeConfig:
    """The experts, their groups, and those that every token goes to.

    has_groups: n_group and topk_group count. first_dense: first_k_dense_replace where the config does not have it.
    """
    reader.choice("moe_layer_freq", (1,), default=1)
    reader.ignore("ep_size", reason="how many devices trained it")
    num_experts, top_k = reader.integer("n_routed_experts", maximum=MAX_EXPERTS), reader.integer("num_experts_per_tok")
    num_groups = reader.integer("n_group", default=1) if has_groups else 1
    num_chosen = reader.integer("topk_group", default=1) if has_groups else 1
    least = 2 if scoring == "sigmoid" else 1
    if num_experts % num_groups or num_experts // num_groups < least:
        raise ConfigError(
            f"{reader.said('n_group')}: {num_experts} experts do not form that many equal groups of at least {least}."
        )
    if num_chosen > num_groups:
        raise ConfigError(f"{reader.said('topk_group')} is more than n_group={num_groups}.")
    if top_k > num_chosen * (num_experts // num_groups):
        raise ConfigError(
            f"{reader.said('num_experts_per_tok')} is more than the {num_chosen * (num_experts // num_groups)} experts"
            " that a token can choose from."
        )
    width = reader.integer("moe_intermediate_size")
    return MoeConfig(
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        intermediate_size=width,
        is_normalized=is_normalized,
        shared_intermediate_size=width * reader.integer("n_shared_experts", default=0, minimum=0),
        dense_layers=frozenset(
            range(min(reader.integer("first_k_dense_replace", default=first_dense, minimum=0), read_num_layers(reader)))
        ),
        grouped=GroupedRouting(
            scoring="sigmoid" if scoring == "sigmoid" else "softmax",
            num_groups=num_groups,
            num_chosen_groups=num_chosen,
            scale=reader.number("routed_scaling_factor", default=1.0),
            has_bias=has_bias,
        ),
    )


def read_latent_model(
    reader: ConfigReader, *, model_types: tuple[str, ...], moe: MoeConfig, is_interleaved: bool
) -> ModelConfig:
    """The shared keys, and the widths of latent attention.

    A stretched rope (yarn) makes scores larger by the square of its mscale_all_dim's growth.
    """
    reader.choice("attention_bias", (False,), default=False)
    reader.ignore("head_dim", "qk_head_dim", reason="follow from qk_nope_head_dim and qk_rope_head_dim")
    max_positions = reader.integer("max_position_embeddings")
    rope = read_rope(reader, max_positions=max_positions)
    latent = LatentConfig(
        q_rank=_read_q_rank(reader),
        kv_rank=_read_width(reader, "kv_lora_rank", default=512),
        rope_size=_read_width(reader, "qk_rope_head_dim", default=64),
        nope_size=_read_width(reader, "qk_nope_head_dim", default=128),
        value_size=_read_width(reader, "v_head_dim", default=128),
        is_interleaved=is_interleaved,
    )
    size = latent.nope_size + latent.rope_size
    config = read_dense(reader, model_types=model_types, moe=moe, head_dim=latent.rope_size, rope=rope)
    if config.num_kv_heads != config.num_heads:
        raise UnsupportedError(
            f"{reader.said('num_key_value_heads')} is not supported for latent attention. Supported:"
            f" {config.num_heads}, as many as num_attention_heads."
        )
    return replace(config, latent=latent, attention_scale=size**-0.5 * _growth(rope) ** 2)


def _read_q_rank(reader: ConfigReader) -> int | None:
    """q_lora_rank; null means that queries have one matrix."""
    if "q_lora_rank" in reader.keys and not reader.has("q_lora_rank"):
        return None
    return _read_width(reader, "q_lora_rank", default=1536)


def _read_width(reader: ConfigReader, key: str, *, default: int) -> int:
    width = reader.integer(key, default=default)
    if width % 8:
        raise UnsupportedError(f"{reader.said(key)} is not supported. Supported: multiples of 8.")
    return width


def _growth(rope: RopeConfig) -> float:
    """Factor on queries and on keys for a rope that is stretched."""
    if rope.rope_type != "yarn" or not rope.mscale_all_dim or rope.factor <= 1:
        return 1.0
    return 0.1 * rope.mscale_all_dim * math.log(rope.factor) + 1.0
