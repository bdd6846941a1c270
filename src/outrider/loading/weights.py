"""The named tensors of a model, whatever the form of its files: a directory of safetensors, or one GGUF file."""

from collections.abc import Container, Iterator
from typing import Protocol

from torch import Tensor

from outrider.loading.checkpoint import Checkpoint
from outrider.loading.gguf.file import is_gguf
from outrider.loading.gguf.tensors import GgufTensors


class Weights(Protocol):
    """Tensors by name. Names and forms are checked when it is made; data is read by `tensors`."""

    @property
    def names(self) -> frozenset[str]:
        """Every tensor, by its name in the Hugging Face layout."""

    def tensors(self, chosen: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on the host), one at a time; all, or the `chosen` names."""

    def headers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor on PyTorch's meta device) of all tensors."""


def open_weights(path: str) -> Weights:
    """The tensors of a target or a draft model. Raises CheckpointError or UnsupportedError."""
    return GgufTensors(path) if is_gguf(path) else Checkpoint(path)
