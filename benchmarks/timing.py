"""Time on a GPU by replaying graphs, and tables of it.

The measured calls read more memory than the L2 holds, from random data, in one captured graph of many calls; a figure
is the median over replays, divided by the number of calls.
"""

import datetime
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import triton

RESULTS = Path(__file__).parent / "results"

READ_BANDWIDTH = 4.37e12
"""Bytes a second of a pure read, measured on an H200."""


def microseconds(run: Callable[[], object], *, calls: int = 1, replays: int = 15) -> float:
    """Median time of one of the `calls` that `run` makes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(replays):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times) * 1e3 / calls


class Table:
    """Rows of text, printed as they come and kept as Markdown."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.lines = [f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        print("\n".join(["", *self.lines]), flush=True)

    def add(self, *cells: object) -> None:
        texts = [f"{cell:.3g}" if isinstance(cell, float) and abs(cell) < 100 else _text(cell) for cell in cells]
        self.lines.append(f"| {' | '.join(texts)} |")
        print(self.lines[-1], flush=True)


def _text(cell: object) -> str:
    return f"{cell:.0f}" if isinstance(cell, float) else str(cell)


def save(name: str, title: str, tables: Sequence[Table], notes: str = "", command: str | None = None) -> Path:
    """Write results/<name>.md, with what it was measured on and the command."""
    driver = torch.cuda.get_device_properties(0)
    head = [
        f"# {title}",
        "",
        f"{datetime.date.today():%Y-%m-%d}, {driver.name}, torch {torch.__version__}, Triton {triton.__version__},"
        f" CUDA {torch.version.cuda}, driver {_driver_version()}.",
        f"Command: `PYTHONPATH=src {command or f'python3 -m benchmarks.kernels {name}'}`",
        "",
    ]
    if notes:
        head += [notes, ""]
    path = RESULTS / f"{name}.md"
    RESULTS.mkdir(exist_ok=True)
    path.write_text("\n".join(head + [line for table in tables for line in [*table.lines, ""]]))
    return path


def _driver_version() -> str:
    found = re.search(r"\b\d+\.\d+\.\d+\b", Path("/proc/driver/nvidia/version").read_text())
    return found[0] if found else "unknown"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
