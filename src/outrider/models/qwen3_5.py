"""Qwen3.5 and Qwen3.6: three layers of Gated DeltaNet to one of attention, whose output has a gate.

Of the multimodal checkpoints the text part is read; text alone needs nothing of the rest.
"""

from collections.abc import Mapping

from torch import nn

from outrider.layers.attention import Attention
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.gated_delta_net import GatedDeltaNet
from outrider.layers.mlp import GatedMLP

ARCHITECTURES = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")


class Model(CausalLM):
    """`Qwen3_5ForConditionalGeneration`, its text part."""

    renames: Mapping[str, str] = {"language_model.": ""}
    skips = ("visual.", "mtp.")

    def build_layer(self, index: int) -> nn.Module:
        config, context = self.config, self.context
        mlp = self.build_mlp(index)
        if config.has_state(index):
            linear = GatedDeltaNet(config, context)
            return DecoderLayer(config, context, attention=linear, mlp=mlp, attention_name="linear_attn")
        attention = Attention(config, context, rope=self.rope, qk_norm=True)
        return DecoderLayer(config, context, attention=attention, mlp=mlp)

    def build_mlp(self, index: int) -> nn.Module:
        """The seam for mixtures of experts."""
        return GatedMLP(self.config, self.context)
