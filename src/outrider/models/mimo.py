"""MiMo-7B: Llama with biases on q, k and v, and prediction modules that take the hidden state first."""

from dataclasses import replace

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import MAX_LAYERS, ModelConfig, read_dense
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM
from outrider.layers.mtp import MtpForm

ARCHITECTURES = ("MiMoForCausalLM",)


class Model(CausalLM):
    """`MiMoForCausalLM`."""

    output_bias = False

    def __init__(self, config: ModelConfig, context: LayerContext, *, max_positions: int) -> None:
        super().__init__(config, context, max_positions=max_positions)
        self.mtp = MtpForm(
            prefixes=tuple(f"mtp_layers.{i}." for i in range(max(1, config.num_mtp_layers))),
            family_prefix="mtp_layers.",
            renames={
                "token_layernorm.": "embedding_norm.",
                "hidden_layernorm.": "hidden_norm.",
                "input_proj.": "fc.",
                "final_layernorm.": "norm.",
                "": "layer.",
            },
            is_hidden_first=True,
        )


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys, and how many prediction layers there are."""
    num_mtp_layers = reader.integer("num_nextn_predict_layers", default=0, minimum=0, maximum=MAX_LAYERS)
    return replace(read_dense(reader, model_types=("mimo",)), num_mtp_layers=num_mtp_layers)
