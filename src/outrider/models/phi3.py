"""Phi-3 and Phi-4: Llama whose checkpoints hold q, k and v in one tensor, and gate and up in one."""

from collections.abc import Iterator

from torch import Tensor

from outrider.core.config_reader import ConfigReader
from outrider.core.errors import UnsupportedError
from outrider.core.model_config import ModelConfig, read_dense, read_windows_everywhere
from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Phi3ForCausalLM",)


class Model(CausalLM):
    """`Phi3ForCausalLM`."""

    def split(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The rows of qkv_proj are q, k and v, those of gate_up_proj gate and up. One scale of the whole is each's."""
        heads, kv_heads, width = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        sizes = {
            "qkv_proj": {"q_proj": heads * width, "k_proj": kv_heads * width, "v_proj": kv_heads * width},
            "gate_up_proj": dict.fromkeys(("gate_proj", "up_proj"), self.config.intermediate_size),
        }
        path, _, tensor_name = name.rpartition(".")
        group, _, module = path.rpartition(".")
        parts = sizes.get(module, {})
        if parts and tensor.numel() == 1:
            yield from ((f"{group}.{part}.{tensor_name}", tensor) for part in parts)
        elif parts and tensor.shape[0] == sum(parts.values()):
            for part, rows in zip(parts, tensor.split(list(parts.values())), strict=True):
                yield f"{group}.{part}.{tensor_name}", rows
        else:
            yield name, tensor  # another tensor, or one that the loader refuses by name


def read_config(reader: ConfigReader) -> ModelConfig:
    """The shared keys. longrope, under any of its names, is refused."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = reader.section(name)
        key = "type" if rope.has("type") else "rope_type"
        if rope.text(key, default="default") in ("longrope", "su", "yarn"):
            raise UnsupportedError(
                f"{rope.said(key)} is not supported: this rope changes for all tokens of a request when it grows beyond"
                " original_max_position_embeddings, so tokens would depend on how a request was cut into steps."
                " Supported: models without it, such as Phi-4 and those of 4k tokens."
            )
    reader.ignore("original_max_position_embeddings", reason="the length at which longrope changes")
    windows = read_windows_everywhere(reader)
    return read_dense(reader, model_types=("phi3",), windows=windows, default_rotary_share=1.0)
