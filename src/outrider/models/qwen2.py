"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a window in the upper layers where the config asks for it."""

from dataclasses import replace

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_switched_windows
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen2ForCausalLM",)


class Model(CausalLM):
    """`Qwen2ForCausalLM`."""

    output_bias = False


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys. The biases are always there, whether or not the config says so."""
    reader.choice("attention_bias", (True,), default=True)
    config = read_dense(reader, model_types=("qwen2",), windows=read_switched_windows(reader))
    return replace(config, attention_bias=True)
