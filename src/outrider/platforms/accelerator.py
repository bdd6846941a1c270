"""A device with its own memory: pinned buffers, events, streams, graphs and memory figures.

A CPU has none of these, and the `accelerator` of its platform is `None`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Event(Protocol):
    """A point on the device's stream."""

    def record(self) -> None:
        """Move the point to the current end of the stream."""

    def query(self) -> bool:
        """True if the device has passed the point; does not wait."""

    def synchronize(self) -> None:
        """Block the host until the device has passed the point."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from this point to `end`; both were made with timing."""


class Graph(Protocol):
    """A captured sequence of launches."""

    def replay(self) -> None:
        """Launch it again, on the tensors it was captured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """Bytes of a device's memory."""

    total: int
    free: int
    reserved: int
    """Held by this process's allocator, tensors included."""
    peak: int
    """Largest number of bytes that tensors have taken since the measurement began."""


class Accelerator(ABC):
    """One device whose work is launched on streams. Methods that block the host say so."""

    @abstractmethod
    def pinned(self, size: int) -> Tensor:
        """[size] int64 in pinned host memory: the device copies from and to it while the host continues."""

    @abstractmethod
    def event(self, *, has_timing: bool = False) -> Event:
        """An event of the current stream; one that was never recorded counts as passed."""

    @abstractmethod
    def side_stream(self) -> AbstractContextManager[Any]:
        """Inside this context, launches go to a separate stream."""

    @abstractmethod
    def synchronize(self) -> None:
        """Block the host until the device has finished all work."""

    @abstractmethod
    def graph_pool(self) -> Any:
        """Memory pool that graphs share; only one of them may run at a time."""

    @abstractmethod
    def capture(self, run: Callable[[], T], *, pool: Any) -> tuple[Graph, T]:
        """Capture what `run` launches without executing it; each replay writes its result."""

    @property
    @abstractmethod
    def total_memory(self) -> int:
        """Bytes of memory of the device."""

    @property
    @abstractmethod
    def reserved_memory(self) -> int:
        """Bytes that this process's allocator holds now, of tensors and for later ones. Does not wait."""

    @abstractmethod
    def begin_memory_measurement(self) -> int:
        """Start to record the peak and return the bytes that tensors take now. Blocks the host."""

    @abstractmethod
    def end_memory_measurement(self) -> MemoryFigures:
        """Release unused memory of the allocator and return the figures. Blocks the host."""


class TorchCuda(Accelerator):
    """A GPU of NVIDIA or AMD: PyTorch drives both through `torch.cuda`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int64, pin_memory=True)

    def event(self, *, has_timing: bool = False) -> Event:
        event: Event = torch.cuda.Event(enable_timing=has_timing)
        return event

    def side_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(torch.cuda.Stream(self._device))

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def graph_pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def capture(self, run: Callable[[], T], *, pool: Any) -> tuple[Graph, T]:
        # not `torch.cuda.graph`, which waits for the device and frees the allocator's memory: that takes longer
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(_capture_stream(self._device)):
            graph.capture_begin(pool=pool, capture_error_mode="relaxed")  # kernels may be loaded meanwhile
            try:
                result = run()
            finally:
                graph.capture_end()
        return graph, result

    @property
    def total_memory(self) -> int:
        return int(torch.cuda.get_device_properties(self._device).total_memory)

    @property
    def reserved_memory(self) -> int:
        return torch.cuda.memory_reserved(self._device)

    def begin_memory_measurement(self) -> int:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device)

    def end_memory_measurement(self) -> MemoryFigures:
        torch.cuda.synchronize(self._device)
        peak = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self._device)
        return MemoryFigures(total=total, free=free, reserved=torch.cuda.memory_reserved(self._device), peak=peak)


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: graphs that share a pool are captured on one stream."""
    return torch.cuda.Stream(device)
