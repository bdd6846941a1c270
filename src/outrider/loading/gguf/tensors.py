"""The tensors of a GGUF file under the names of the Hugging Face layout, as fp32, one at a time.

The gguf package multiplies quantised values out. Two changes of its converters are undone: rows of q and k of Llama,
which are stored for a rope of neighbouring pairs, and norms of Gemma, which are stored with 1 added.
"""

import math
import re
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from outrider.core.errors import CheckpointError, UnsupportedError
from outrider.loading.gguf.config import FREQUENCIES
from outrider.loading.gguf.file import GgufFile, StoredTensor

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
"""Encodings of values that are read."""

_ROWS = 4096

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INSIDE = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_INSIDE_GEMMA = _INSIDE | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class GgufTensors:
    """The tensors of one file, with the interface of `loading.checkpoint.Checkpoint`."""

    def __init__(self, path: str | Path) -> None:
        """Raises UnsupportedError for a tensor whose type or name is not known."""
        self._file = GgufFile(path)
        kept = [tensor for name, tensor in self._file.tensors.items() if name != FREQUENCIES]
        for tensor in kept:
            if tensor.type_name not in TYPES:
                raise UnsupportedError(
                    f"{path}: {tensor.name!r} has values of type {tensor.type_name}, which is not supported. Supported:"
                    f" {', '.join(TYPES)}. Use a file of another quantisation, such as Q4_K_M or Q8_0."
                )
        self._stored = {self._full_name(tensor.name): tensor for tensor in kept}

    @property
    def names(self) -> frozenset[str]:
        """Every tensor, by its name in the Hugging Face layout."""
        return frozenset(self._stored)

    def tensors(self, chosen: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, fp32 tensor on the host), one at a time; all, or the `chosen` names."""
        for name, stored in self._stored.items():
            if chosen is None or name in chosen:
                yield name, torch.from_numpy(self._values(stored))

    def headers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, fp32 tensor on PyTorch's meta device, which has no data) of all tensors."""
        for name, stored in self._stored.items():
            yield name, torch.empty(stored.shape, dtype=torch.float32, device="meta")

    def _full_name(self, name: str) -> str:
        inside = _INSIDE_GEMMA if self._file.architecture == "gemma3" else _INSIDE
        match = re.fullmatch(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>[a-z0-9_]+)\.(?P<kind>weight|bias)", name)
        if match is not None:
            layer, part, kind = match["layer"], match["part"], match["kind"]
            if layer is None and part in _OUTSIDE:
                return f"{_OUTSIDE[part]}.{kind}"
            if layer is not None and part in inside:
                return f"model.layers.{layer}.{inside[part]}.{kind}"
        raise UnsupportedError(f"{self._file.path}: the tensor {name!r} is not supported. Use the model's safetensors.")

    def _values(self, stored: StoredTensor) -> np.ndarray:
        """Values of a tensor in its shape, fp32."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        encoded = self._file.stored_bytes(stored).reshape(math.prod(stored.shape[:-1]), -1)
        rows = np.empty((len(encoded), stored.shape[-1]), dtype=np.float32)
        for first in range(0, len(rows), _ROWS):  # the package holds the values of a call twice
            part = slice(first, first + _ROWS)
            rows[part] = dequantize(encoded[part], GGMLQuantizationType[stored.type_name])
        values = rows.reshape(stored.shape)
        if self._file.architecture == "llama" and (found := re.search(r"\.attn_(q|k)\.", stored.name)):
            return _halves(values, self._num_heads(found[1]), where=f"{self._file.path}: {stored.name!r}")
        if self._file.architecture == "gemma3" and stored.name.endswith("norm.weight"):
            return values - np.float32(1.0)
        return values

    def _num_heads(self, part: str) -> int:
        heads = self._file.get("llama.attention.head_count")
        return int(heads if part == "q" else self._file.get("llama.attention.head_count_kv", heads))


def _halves(values: np.ndarray, num_heads: int, *, where: str) -> np.ndarray:
    """Rows of each head as a rope of halves wants them: (0, 1), (2, 3), … become 0, 2, …, 1, 3, …"""
    if values.shape[0] % (2 * num_heads):
        raise CheckpointError(f"{where} has {values.shape[0]} rows, not an even number for each of {num_heads} heads.")
    pairs = values.reshape(num_heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
