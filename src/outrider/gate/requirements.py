"""What a gate entry asks of the machine and the engine before it may run."""

import os

import torch

from outrider.gate.baseline import Settings
from outrider.gate.errors import GateError
from outrider.llm import LLM
from outrider.platforms.base import select_platform

_GIB = 1024**3


def check_memory(settings: Settings, device: str) -> None:
    """GateError where the device has less memory than the entry requires. Nothing is loaded yet."""
    if not settings.required_memory_gib:
        return
    has = memory_gib(select_platform(device).device)
    if has < settings.required_memory_gib:
        raise GateError(
            f"the entry needs {settings.required_memory_gib:g} GiB and the device has {has:.1f}. Use a larger one."
        )


def memory_gib(device: torch.device) -> float:
    """All memory of a device; of the host for a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / _GIB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB


def check_backend(settings: Settings, llm: LLM) -> None:
    """GateError where the entry excludes the attention backend that was selected."""
    backend = llm.engine.worker.selection.backend.name
    if backend in settings.excluded_backends:
        raise GateError(f"the entry excludes attention backend {backend!r}: {settings.excluded_backends[backend]}")
