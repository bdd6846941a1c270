"""Qwen3-MoE: Qwen3 with a mixture of experts in the place of the MLP, in all layers or in those the config says."""

from torch import nn

from outrider.core.errors import ConfigError
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen3MoeForCausalLM",)


class Model(CausalLM):
    """`Qwen3MoeForCausalLM`."""

    qk_norm = True

    def build_mlp(self, index: int) -> nn.Module:
        if self.config.moe is None:
            raise ConfigError("config.json has no num_experts or no moe_intermediate_size. Copy the original one.")
        return super().build_mlp(index)
