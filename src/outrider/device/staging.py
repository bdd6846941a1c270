"""Host to device, in one copy per step: integers of the plan are laid end to end in one buffer.

A CPU reads the buffer where it lies. (A device with its own memory needs it pinned, and a ring of such buffers, so that
none is overwritten while its copy is in flight.) Knows nothing of what the numbers mean.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


class Staging:
    """Copies named lists of integers to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def put(self, arrays: Mapping[str, Sequence[int] | np.ndarray]) -> dict[str, Tensor]:
        """One int64 tensor per name, all of them slices of one copy."""
        parts = [np.asarray(values, dtype=np.int64) for values in arrays.values()]
        buffer = torch.from_numpy(np.concatenate(parts)).to(self._device, non_blocking=True)
        return dict(zip(arrays, torch.split(buffer, [part.size for part in parts]), strict=True))
