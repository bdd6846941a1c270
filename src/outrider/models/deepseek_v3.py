"""DeepSeek-V3 and R1, Kimi-K2 and Moonlight: as DeepSeek-V2, with a sigmoid router whose choice has a bias."""

from dataclasses import replace

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import MAX_LAYERS, ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.mtp import MtpForm
from outrider.models import deepseek_v2

ARCHITECTURES = ("DeepseekV3ForCausalLM",)


class Model(deepseek_v2.Model):
    """`DeepseekV3ForCausalLM`. Prediction modules are numbered as layers after the last one."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        super().__init__(config, context, max_positions=max_positions)
        if config.num_mtp_layers:
            self.mtp = MtpForm(
                prefixes=tuple(f"layers.{config.num_layers + i}." for i in range(config.num_mtp_layers)),
                renames={
                    "enorm.": "embedding_norm.",
                    "hnorm.": "hidden_norm.",
                    "eh_proj.": "fc.",
                    "shared_head.norm.": "norm.",
                    "": "layer.",
                },
                copies={"embed_tokens.weight": "embed_tokens.weight", "shared_head.head.weight": "lm_head.weight"},
                has_plain_fc=True,
            )


def read_config(reader: ConfigReader) -> ModelConfig:
    """The keys of DeepSeek-V3 and its prediction modules; model_type may be that of Kimi-K2."""
    reader.choice("scoring_func", ("sigmoid",), default="sigmoid")
    reader.choice("topk_method", ("noaux_tc",), default="noaux_tc")
    moe = deepseek_v2.read_experts(
        reader,
        scoring="sigmoid",
        has_groups=True,
        has_bias=True,
        is_normalized=reader.flag("norm_topk_prob", default=True),
        first_dense=3,
    )
    config = deepseek_v2.read_latent_model(
        reader,
        model_types=("deepseek_v3", "kimi_k2"),
        moe=moe,
        is_interleaved=reader.flag("rope_interleave", default=True),
    )
    num_modules = reader.integer("num_nextn_predict_layers", default=0, minimum=0, maximum=MAX_LAYERS)
    return replace(config, num_mtp_layers=num_modules)
