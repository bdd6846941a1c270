"""The context that every layer is built with, chosen once before the model is made."""

from dataclasses import dataclass, field

import torch

from outrider.kernels import Kernels
from outrider.layers.weight_format import WeightFormat, find_format


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """Kernels, and the dtype, device and format of weights."""

    kernels: Kernels
    dtype: torch.dtype
    device: torch.device
    weight_format: WeightFormat = field(default_factory=lambda: find_format("plain"))
    """Format of the linear layers and experts."""
    assigns_formats: bool = False
    """Weights have no memory until `layers/assignment.py` has given each layer the format of its modules."""
