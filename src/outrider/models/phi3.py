"""Phi-3 and Phi-4: Llama whose checkpoints hold q, k and v in one tensor, and gate and up in one."""

from collections.abc import Iterator

from torch import Tensor

from outrider.core.config_reader import ConfigReader
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
    """The shared keys. Old configs call longrope su or yarn."""
    reader.assume({"original_max_position_embeddings": 4096})
    reader.ignore("original_max_position_embeddings", reason="the length at which longrope changes")
    for key, value in (("full_attn_mod", 1), ("interpolate_factor", 1), ("lm_head_bias", False)):
        reader.neutral(key, value, reason="not used")
    return read_dense(
        reader,
        model_types=("phi3",),
        windows=read_windows_everywhere(reader),
        default_rotary_share=1.0,
        rope_names={"su": "longrope", "yarn": "longrope"},
    )
