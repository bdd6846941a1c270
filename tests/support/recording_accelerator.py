"""A device with memory of its own that is the CPU: copies happen at once, and every call is noted."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from outrider.platforms import cpu
from outrider.platforms.accelerator import Accelerator, MemoryFigures


class RecordingAccelerator(Accelerator):
    """Notes ("pinned", size), ("record", event) and ("synchronize", event) or ("query", event); events are
    numbered as they are made. An event of `pending` has not been passed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.buffers: list[torch.Tensor] = []
        self.num_events = 0
        self.pending: set[int] = set()

    def pinned(self, size: int) -> torch.Tensor:
        self.calls.append(("pinned", size))
        self.buffers.append(torch.full((size,), -1, dtype=torch.int64))
        return self.buffers[-1]

    def event(self, *, has_timing: bool = False) -> "RecordingEvent":
        self.num_events += 1
        return RecordingEvent(self, self.num_events - 1)

    def side_stream(self) -> Any:
        return nullcontext()

    def synchronize(self) -> None:
        self.calls.append(("synchronize", -1))

    def graph_pool(self) -> Any:
        raise NotImplementedError("nothing is captured here")

    def capture(self, run: Callable[[], Any], *, pool: Any) -> Any:
        raise NotImplementedError("nothing is captured here")

    @property
    def total_memory(self) -> int:
        return 1000

    @property
    def reserved_memory(self) -> int:
        return 250

    def begin_memory_measurement(self) -> int:
        return 100

    def end_memory_measurement(self) -> MemoryFigures:
        return MemoryFigures(total=1000, free=700, reserved=250, peak=150)


class RecordingEvent:
    """One event."""

    def __init__(self, accelerator: RecordingAccelerator, number: int) -> None:
        self._accelerator = accelerator
        self._number = number

    def record(self) -> None:
        self._accelerator.calls.append(("record", self._number))

    def query(self) -> bool:
        self._accelerator.calls.append(("query", self._number))
        return self._number not in self._accelerator.pending

    def synchronize(self) -> None:
        self._accelerator.calls.append(("synchronize", self._number))

    def elapsed_time(self, end: Any) -> float:
        return 0.0


class Platform(cpu.Platform):
    """The CPU as if it had memory of its own."""

    def __init__(self) -> None:
        self.recording = RecordingAccelerator()

    @property
    def accelerator(self) -> RecordingAccelerator:  # type: ignore[override]
        return self.recording
