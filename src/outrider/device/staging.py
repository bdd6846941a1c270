"""Host to device: lists of integers are concatenated in one buffer and copied at once.

A CPU reads the buffer in place. A device with memory of its own gets it from a ring of pinned buffers: a buffer is used
again once its last copy has ended, and the ring grows where that is not so: the host never waits. Independent of the
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

_LEAST = 1 << 15
"""Number of integers in the smallest buffer: enough for the layout of a step of 8192 tokens, so that memory is seldom
pinned while requests are served."""

_RECORDS = 8
"""Number of buffers for records, of which a step has one."""

_LEAST_RECORD = 1 << 17
"""Number of integers in the smallest buffer for records: pinning more memory takes a millisecond."""

_ALIGNED = 2
"""Each list begins at a multiple of this number of integers, 16 bytes, so that no kernel is compiled for others."""

_PADDING = np.zeros(1, dtype=np.int64)


class Staging:
    """Copies named lists of integers to the device."""

    def __init__(self, platform: BasePlatform) -> None:
        self._device = platform.device
        self._ring = self._records = None
        if platform.accelerator is not None:
            self._ring = PinnedRing(_RING, _LEAST, platform.accelerator)
            self._records = PinnedRing(_RECORDS, _LEAST_RECORD, platform.accelerator)

    def put(self, arrays: Mapping[str, Integers]) -> dict[str, Tensor]:
        """One int64 tensor per name, all of them slices of one copy, each aligned to 16 bytes."""
        parts, sizes = [], []
        for values in arrays.values():
            part = np.asarray(values, dtype=np.int64)
            padding = [_PADDING] * (part.size % _ALIGNED)
            parts += [part, *padding]
            sizes += [part.size, len(padding)]
        slices = torch.split(self._copy(parts, self._ring), sizes)
        return dict(zip(arrays, slices[::2], strict=True))

    def put_record(self, parts: Sequence[np.ndarray]) -> Tensor:
        """Arrays of int64 one after the other, [sum of sizes] int64; for a step's one large copy."""
        return self._copy(parts, self._records)

    def put_record_into(self, target: Tensor, parts: Sequence[np.ndarray]) -> None:
        """`put_record` into `target` (int64, contiguous, on the device), which is as large."""
        assert target.numel() == sum([part.size for part in parts]), f"{target.numel()} places for other sizes"
        self._copy(parts, self._records, target=target.view(-1))

    def put_into(self, target: Tensor, values: np.ndarray) -> None:
        """Overwrite `target` (int64, contiguous, on the device) with as many `values`."""
        assert target.numel() == values.size, f"{values.size} values for {target.numel()} places"
        self._copy([values.reshape(-1)], self._ring, target=target.view(-1))

    def _copy(self, parts: Sequence[np.ndarray], ring: "PinnedRing | None", *, target: Tensor | None = None) -> Tensor:
        if ring is None:
            host = torch.from_numpy(np.concatenate(parts))
            return host.to(self._device) if target is None else target.copy_(host)
        size = sum([part.size for part in parts])
        slot = ring.take(size)
        np.concatenate(parts, out=slot.on_host[:size])
        if target is None:
            target = torch.empty(size, dtype=torch.int64, device=self._device)
        target.copy_(slot.buffer[:size], non_blocking=True)
        slot.event.record()
        return target


class PinnedSlot:
    """A pinned buffer, and the event of the last copy from or to it."""

    def __init__(self, size: int, accelerator: Accelerator) -> None:
        self.buffer = accelerator.pinned(size)
        self.on_host = self.buffer.numpy()
        """Its memory as an array, which numpy fills faster."""
        self.event = accelerator.event()


class PinnedRing:
    """Pinned buffers of int64, used in turn."""

    def __init__(self, count: int, size: int, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._slots = [PinnedSlot(size, accelerator) for _ in range(count)]
        self._next = 0

    def take(self, size: int) -> PinnedSlot:
        """The next buffer, of at least `size` integers. Does not wait: while the next buffer's last copy has not ended,
        there is one more."""
        slot = self._slots[self._next]
        if not slot.event.query():
            slot = PinnedSlot(max(size, slot.buffer.numel()), self._accelerator)
            self._slots.insert(self._next, slot)
        if slot.buffer.numel() < size:
            slot = self._slots[self._next] = PinnedSlot(1 << (size - 1).bit_length(), self._accelerator)
        self._next = (self._next + 1) % len(self._slots)
        return slot
