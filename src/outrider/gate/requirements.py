"""Checks that the machine and the engine meet the requirements of a gate entry."""

from outrider.gate.baseline import Settings
from outrider.gate.errors import GateError
from outrider.llm import LLM
from outrider.platforms.base import select_platform

_GIB = 1024**3


def check_memory(settings: Settings, device: str) -> None:
    """Raises GateError if the device has less memory than the entry requires. Runs before anything is loaded."""
    if not settings.required_memory_gib:
        return
    has = select_platform(device).total_memory / _GIB
    if has < settings.required_memory_gib:
        raise GateError(
            f"the entry needs {settings.required_memory_gib:g} GiB and the device has {has:.1f}. Use a larger one."
        )


def check_backend(settings: Settings, llm: LLM) -> None:
    """Raises GateError if the entry excludes the selected attention backend."""
    backend = llm.engine.worker.selection.backend.name
    if backend in settings.excluded_backends:
        raise GateError(f"the entry excludes attention backend {backend!r}: {settings.excluded_backends[backend]}")
