"""Qwen3-MoE: Qwen3 with a mixture of experts in the place of the MLP, in all layers or in those the config says."""

from torch import nn

from outrider.core.errors import ConfigError
from outrider.layers.attention import Attention
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.mlp import GatedMLP
from outrider.layers.moe import MoE

ARCHITECTURES = ("Qwen3MoeForCausalLM",)


class Model(CausalLM):
    """`Qwen3MoeForCausalLM`."""

    def build_layer(self, index: int) -> nn.Module:
        if self.config.moe is None:
            raise ConfigError("config.json has no num_experts or no moe_intermediate_size. Copy the original one.")
        attention = Attention(self.config, self.context, rope=self.rope, qk_norm=True)
        kind = GatedMLP if index in self.config.moe.dense_layers else MoE
        return DecoderLayer(self.config, self.context, attention=attention, mlp=kind(self.config, self.context))
