"""What every layer is built with: chosen once, before the model is made."""

from dataclasses import dataclass

import torch

from outrider.kernels import Kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """Kernels, dtype and device of a layer's weights."""

    kernels: Kernels
    dtype: torch.dtype
    device: torch.device
