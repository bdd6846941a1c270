"""Mistral: Llama with a window in every layer where the config has one, as that of 7B v0.1 does."""

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_windows_everywhere
from outrider.core.pooler_config import InstructedEmbedder
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("MistralForCausalLM", "GritLM")

EMBEDDER = InstructedEmbedder(marks=("gritlm",), architectures=("GritLM",), text_mark="<|embed|>\n")
"""GritLM-7B writes text like every Mistral, and makes vectors of the text behind this mark."""


class Model(CausalLM):
    """`MistralForCausalLM`."""


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys. sliding_window is 4096 where the config does not have the key; null means none."""
    windows = read_windows_everywhere(reader, default=4096)
    return read_dense(reader, model_types=("mistral",), windows=windows)
