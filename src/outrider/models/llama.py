"""Llama 2 and 3, and models of the same shape (TinyLlama, SmolLM, Yi): the shared decoder as it is."""

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("LlamaForCausalLM",)


class Model(CausalLM):
    """`LlamaForCausalLM`."""


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys, and biases on the MLP."""
    reader.neutral("is_llama_config", True, reason="the architecture says so")
    return read_dense(reader, model_types=("llama",), has_mlp_bias=True)
