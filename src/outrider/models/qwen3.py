"""Qwen3 dense: Llama with RMSNorm on the heads of q and k, before rope."""

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_switched_windows
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen3ForCausalLM",)


class Model(CausalLM):
    """`Qwen3ForCausalLM`."""

    qk_norm = True


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys; head_dim is 128 where the config has none, whatever the width."""
    windows = read_switched_windows(reader)
    return read_dense(reader, model_types=("qwen3",), windows=windows, default_head_dim=128)
