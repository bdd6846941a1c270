"""A model of five layers of three kinds: full attention, windows of 24 and of 5 tokens, heads of two widths, sinks."""

from dataclasses import dataclass, replace

from torch import nn

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig, read_dense
from outrider.layers.attention import Attention
from outrider.layers.decoder import CausalLM
from outrider.layers.rope import Rope

ARCHITECTURES = ("WindowedForCausalLM",)


@dataclass(frozen=True)
class Kind:
    """Differences of one layer's attention."""

    window: int | None
    num_heads: int = 4
    num_kv_heads: int = 2
    width: int = 1
    """Multiple of the config's head_dim."""
    has_sinks: bool = False


KINDS = (
    Kind(window=None),
    Kind(window=24),
    Kind(window=5, num_heads=2, num_kv_heads=1, width=2, has_sinks=True),
    Kind(window=None, num_heads=2, num_kv_heads=2, width=2),
    Kind(window=24),
)
"""The kind of each layer of the whole model."""

WINDOWS_ONLY = (KINDS[1], KINDS[2])
"""A model of two layers, neither of which sees all tokens."""


def kinds_of(num_layers: int) -> tuple[Kind, ...]:
    """The kind of each layer of a model with this many."""
    return {len(kinds): kinds for kinds in (KINDS, WINDOWS_ONLY)}[num_layers]


class Model(CausalLM):
    """`WindowedForCausalLM`; the number of layers says which they are."""

    def build_attention(self, index: int) -> nn.Module:
        kind = kinds_of(self.config.num_layers)[index]
        head_dim = self.config.head_dim * kind.width
        config = replace(self.config, num_heads=kind.num_heads, num_kv_heads=kind.num_kv_heads, head_dim=head_dim)
        rope = Rope(config.rope, head_dim, self.rope.cos_sin.shape[0], self.context)
        return Attention(config, self.context, rope=rope, window=kind.window, has_sinks=kind.has_sinks)


def read_config(reader: ConfigReader) -> ModelConfig:
    """Llama's keys."""
    return read_dense(reader, model_types=("windowed",))
