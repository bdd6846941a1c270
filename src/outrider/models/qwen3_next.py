"""Qwen3-Next: as Qwen3.5 with experts, but its checkpoints group the projections of linear attention by key head."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from outrider.core.config_reader import ConfigReader
from outrider.core.model_config import ModelConfig
from outrider.models import qwen3_5

ARCHITECTURES = ("Qwen3NextForCausalLM",)


class Model(qwen3_5.Model):
    """`Qwen3NextForCausalLM`."""

    renames: Mapping[str, str] = {}
    skips: tuple[str, ...] = ()

    def split(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """in_proj_qkvz holds q, k and the v and z of its value heads for each key head in turn, in_proj_ba b and a."""
        shape = self.config.gated_delta
        assert shape is not None, "Qwen3-Next is a hybrid"
        group = shape.num_value_heads // shape.num_key_heads
        values = group * shape.value_size
        prefix, _, piece = name.rpartition("in_proj_")
        if piece == "qkvz.weight":
            sizes = [shape.key_size, shape.key_size, values, values]
            q, k, v, z = _by_key_head(tensor, shape.num_key_heads, sizes)
            yield f"{prefix}in_proj_qkv.weight", _stacked(q, k, v)
            yield f"{prefix}in_proj_z.weight", _stacked(z)
        elif piece == "ba.weight":
            b, a = _by_key_head(tensor, shape.num_key_heads, [group, group])
            yield f"{prefix}in_proj_b.weight", _stacked(b)
            yield f"{prefix}in_proj_a.weight", _stacked(a)
        else:
            yield name, tensor


def read_config(reader: ConfigReader) -> ModelConfig:
    """The keys of Qwen3.5 with experts; there is no multimodal form."""
    return qwen3_5.read_hybrid(reader, architecture=ARCHITECTURES[0], model_types=("qwen3_next",), has_experts=True)


def _by_key_head(tensor: Tensor, num_key_heads: int, sizes: list[int]) -> tuple[Tensor, ...]:
    """Views [Kh, size, H] of a tensor [Kh × sum of sizes, H]."""
    return tensor.view(num_key_heads, sum(sizes), -1).split(sizes, dim=1)


def _stacked(*parts: Tensor) -> Tensor:
    """[sum of all rows, H]."""
    return torch.cat([part.flatten(0, 1) for part in parts])
