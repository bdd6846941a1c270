"""A CPU that captures and replays steps: a replay runs the step again on the tensors it was captured with.

So a test sees on a CPU all that a graph takes from its buffers: padded layouts, and results that are overwritten.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from outrider import platforms
from outrider.device import graphs
from outrider.platforms.accelerator import MemoryFigures
from tests.support.recording_accelerator import RecordingAccelerator

_FILE = '''"""A CPU that replays steps."""

from outrider.platforms.cpu import Platform as Cpu
from tests.support.replaying_platform import ReplayingAccelerator


class Platform(Cpu):
    name = "replaying"
    has_graphs = True
    accelerator = ReplayingAccelerator()
'''


class ReplayingAccelerator(RecordingAccelerator):
    """Copies at once, and captures steps."""

    def graph_pool(self) -> Any:
        return None

    def capture(self, run: Callable[[], Any], *, pool: Any) -> Any:
        result = run()
        return _Graph(run, list(_tensors(result))), result

    def end_memory_measurement(self) -> MemoryFigures:
        return MemoryFigures(total=1 << 32, free=1 << 32, reserved=0, peak=100)


class _Graph:
    def __init__(self, run: Callable[[], Any], results: list[torch.Tensor]) -> None:
        self._run = run
        self._results = results

    def replay(self) -> None:
        for result, again in zip(self._results, _tensors(self._run()), strict=True):
            result.copy_(again)


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    """All tensors of a result, however they are nested."""
    if isinstance(result, torch.Tensor):
        yield result
    elif is_dataclass(result):
        for entry in fields(result):
            yield from _tensors(getattr(result, entry.name))
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from _tensors(part)
    elif isinstance(result, Mapping):
        yield from _tensors(list(result.values()))


def install(monkeypatch: Any, folder: Path, *, prepares: bool = False) -> None:
    """Let the engine find the device "replaying". Its graphs have few sizes; unless it `prepares`, none is captured at
    the start."""
    (folder / "replaying.py").write_text(_FILE)
    monkeypatch.setattr(platforms, "__path__", [*platforms.__path__, str(folder)])
    monkeypatch.setattr(graphs, "ROW_BUCKETS", (2, 5, 64))
    monkeypatch.setattr(graphs, "MIXED_ROW_BUCKETS", (3, 9, 64))
    monkeypatch.setattr(graphs, "MIXED_TOKEN_BUCKETS", (20, 50, 512))
    if not prepares:
        monkeypatch.setattr(graphs.StepGraphs, "prepare", lambda self: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
