"""OLMo 3: as OLMo 2, with three layers that have a window to one without, whose rope alone is stretched."""

from dataclasses import replace

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense, read_ropes_by_kind, read_windows_by_kind
from outrider.models import olmo2

ARCHITECTURES = ("Olmo3ForCausalLM",)


class Model(olmo2.Model):
    """`Olmo3ForCausalLM`."""


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys. sliding_window is 4096 where the config does not have the key."""
    max_positions = reader.integer("max_position_embeddings")
    rope, local_rope = read_ropes_by_kind(reader, max_positions=max_positions, theta=500000.0)
    windows = read_windows_by_kind(reader, is_sliding=lambda index: bool((index + 1) % 4), default=4096)
    config = read_dense(reader, model_types=("olmo3",), windows=windows, rope=rope)
    return replace(config, local_rope=local_rope, norm_casts_last=True)
