"""Qwen3 dense: Llama with RMSNorm on the heads of q and k, before rope."""

from torch import nn

from outrider.layers.attention import Attention
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.mlp import GatedMLP

ARCHITECTURES = ("Qwen3ForCausalLM",)


class Model(CausalLM):
    """`Qwen3ForCausalLM`."""

    def build_layer(self, index: int) -> nn.Module:
        attention = Attention(self.config, self.context, rope=self.rope, qk_norm=True)
        mlp = GatedMLP(self.config, self.context)
        return DecoderLayer(self.config, self.context, attention=attention, mlp=mlp)
