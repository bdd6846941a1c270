"""MiMo-7B: Llama with biases on q, k and v, and a prediction module that takes the hidden state first."""

from outrider.layers.decoder import CausalLM
from outrider.layers.mtp import MtpForm

ARCHITECTURES = ("MiMoForCausalLM",)


class Model(CausalLM):
    """`MiMoForCausalLM`."""

    output_bias = False
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
