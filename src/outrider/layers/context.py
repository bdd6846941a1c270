"""What every layer is built with: chosen once, before the model is made."""

from dataclasses import dataclass

import torch

from outrider.attention.base import AttentionBackend
from outrider.kernels import Kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """Where weights live, in which dtype, and who computes."""

    kernels: Kernels
    backend: AttentionBackend
    dtype: torch.dtype
    device: torch.device
