"""Host to device: lists of integers are concatenated in one buffer and copied at once.

A CPU reads the buffer in place. A device with memory of its own gets it from a ring of pinned buffers: a buffer is used
again once its last copy has ended, and the ring is so long that this never makes the host wait. Independent of the
numbers' meaning.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from outrider.platforms.accelerator import Accelerator
from outrider.platforms.base import BasePlatform

Integers = Sequence[int] | np.ndarray

_RING = 64
"""Number of buffers; larger than the number of copies of the steps that can be in flight."""

_LEAST = 1024
"""Number of integers in the smallest buffer."""


class Staging:
    """Copies named lists of integers to the device."""

    def __init__(self, platform: BasePlatform) -> None:
        self._device = platform.device
        self._ring = PinnedRing(_RING, _LEAST, platform.accelerator) if platform.accelerator is not None else None

    @property
    def is_pinned(self) -> bool:
        """True if values reach the device through pinned memory, because it has memory of its own."""
        return self._ring is not None

    def put(self, arrays: Mapping[str, Integers]) -> dict[str, Tensor]:
        """One int64 tensor per name, all of them slices of one copy."""
        parts = [np.asarray(values, dtype=np.int64) for values in arrays.values()]
        buffer = self._copy(np.concatenate(parts))
        return dict(zip(arrays, torch.split(buffer, [part.size for part in parts]), strict=True))

    def put_into(self, target: Tensor, values: np.ndarray) -> None:
        """Overwrite `target` (int64, contiguous, on the device) with as many `values`."""
        assert target.numel() == values.size, f"{values.size} values for {target.numel()} places"
        self._copy(values.reshape(-1), target.view(-1))

    def _copy(self, values: np.ndarray, target: Tensor | None = None) -> Tensor:
        host = torch.from_numpy(values)
        if self._ring is None:
            if target is None:
                return host.to(self._device)
            return target.copy_(host)
        if target is None:
            target = torch.empty(values.size, dtype=torch.int64, device=self._device)
        slot = self._ring.take(values.size)
        pinned = slot.buffer[: values.size].copy_(host)
        target.copy_(pinned, non_blocking=True)
        slot.event.record()
        return target


class PinnedSlot:
    """A pinned buffer, and the event of the last copy from or to it."""

    def __init__(self, size: int, accelerator: Accelerator) -> None:
        self.buffer = accelerator.pinned(size)
        self.event = accelerator.event()


class PinnedRing:
    """Pinned buffers of int64, used in turn."""

    def __init__(self, count: int, size: int, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._slots = [PinnedSlot(size, accelerator) for _ in range(count)]
        self._next = 0

    def take(self, size: int) -> PinnedSlot:
        """The next buffer, of at least `size` integers; blocks the host until its last copy has ended."""
        slot = self._slots[self._next]
        slot.event.synchronize()
        if slot.buffer.numel() < size:
            slot = self._slots[self._next] = PinnedSlot(1 << (size - 1).bit_length(), self._accelerator)
        self._next = (self._next + 1) % len(self._slots)
        return slot
