"""The destination of a checkpoint tensor that has another form in memory than in the files."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """Says which tensors fit, and what to do with one."""

    shapes: tuple[tuple[int, ...], ...]
    """Shapes that the file may have."""
    dtypes: tuple[torch.dtype, ...]
    """dtypes that the file may have."""
    fill: Callable[[Tensor], None]
    """Takes the tensor, on the host. Raises ValueError, with reason and remedy, if its values cannot be used."""
    is_optional: bool = False
    """The file may lack it."""


Destination = Tensor | Slot
"""A tensor is copied, cast to the dtype of its destination."""
