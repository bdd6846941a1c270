"""Qwen3.5 and Qwen3.6: three layers of Gated DeltaNet to one of attention, whose output has a gate; dense, or a mixture
of experts beside one that every token goes to.

Of the multimodal checkpoints the text part is read; text alone needs nothing of the rest.
"""

from collections.abc import Mapping

from torch import nn

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
        prefix="mtp.",
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
        return MtpModule(self.config, self.context, layer=layer, is_hidden_first=self.mtp.is_hidden_first)
