"""Qwen3-MoE: Qwen3 with a mixture of experts instead of the MLP, in all layers or in those the config says."""

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_moe
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen3MoeForCausalLM",)


class Model(CausalLM):
    """`Qwen3MoeForCausalLM`."""

    qk_norm = True


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys and the experts, whose weights sum to one only where the config says so."""
    return read_dense(reader, model_types=("qwen3_moe",), moe=read_moe(reader, is_normalized=False))
