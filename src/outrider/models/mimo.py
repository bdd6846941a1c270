"""MiMo-7B: Llama with biases on q, k and v, and a prediction module that takes the hidden state first."""

from torch import nn

from outrider.layers.attention import Attention
from outrider.layers.decoder import CausalLM, DecoderLayer
from outrider.layers.mlp import GatedMLP
from outrider.layers.mtp import MtpForm

ARCHITECTURES = ("MiMoForCausalLM",)


class Model(CausalLM):
    """`MiMoForCausalLM`."""

    mtp = MtpForm(
        prefix="mtp_layers.",
        renames={
            "0.token_layernorm.": "embedding_norm.",
            "0.hidden_layernorm.": "hidden_norm.",
            "0.input_proj.": "fc.",
            "0.final_layernorm.": "norm.",
            "0.": "layer.",
        },
        is_hidden_first=True,
    )

    def build_layer(self, index: int) -> nn.Module:
        attention = Attention(self.config, self.context, rope=self.rope, output_bias=False)
        mlp = GatedMLP(self.config, self.context)
        return DecoderLayer(self.config, self.context, attention=attention, mlp=mlp)
