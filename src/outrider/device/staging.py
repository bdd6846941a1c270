"""Host to device, in one copy per step: integers of the plan are laid end to end in one buffer.

A CPU reads the buffer where it lies. A device with its own memory gets it from a ring of pinned buffers: each is taken
again only after its last copy has ended, which a ring this long never waits for. Knows nothing of what the numbers
mean.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Integers = Sequence[int] | np.ndarray

_RING = 64
"""Buffers: more than the copies of the steps that can be in flight."""

_LEAST = 1024
"""Integers in the smallest buffer."""


class Staging:
    """Copies named lists of integers to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = PinnedRing(_RING, _LEAST) if device.type == "cuda" else None

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

    def __init__(self, size: int) -> None:
        self.buffer = torch.empty(size, dtype=torch.int64, pin_memory=True)
        self.event = torch.cuda.Event()


class PinnedRing:
    """Pinned buffers of int64 in turn."""

    def __init__(self, count: int, size: int) -> None:
        self._slots = [PinnedSlot(size) for _ in range(count)]
        self._next = 0

    def take(self, size: int) -> PinnedSlot:
        """The next buffer, of at least `size` integers; its last copy has ended."""
        slot = self._slots[self._next]
        slot.event.synchronize()
        if slot.buffer.numel() < size:
            slot = self._slots[self._next] = PinnedSlot(1 << (size - 1).bit_length())
        self._next = (self._next + 1) % len(self._slots)
        return slot
