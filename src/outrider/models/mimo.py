"""MiMo-7B: Llama with biases on q, k and v, and a prediction module that takes the hidden state first."""

from dataclasses import replace

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense
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


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys, and how many prediction layers there are."""
    num_mtp_layers = reader.integer("num_nextn_predict_layers", default=0, minimum=0)
    return replace(read_dense(reader, model_types=("mimo",)), num_mtp_layers=num_mtp_layers)
