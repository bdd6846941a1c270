"""Private attributes of the worker are reached in its own room only, and only platforms know a device's library."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "outrider"
FOLDERS = ("src", "tests", "benchmarks", "examples", "zoo")

PRIVATE = re.compile(r"(?<!self)\._step\b|(?<!self)\._graphs\b|\bworker\._[a-z]")
DEVICE = re.compile(r"\btorch\.cuda\b|\.type\s*[!=]=\s*[\"']cuda[\"']")

KNOW_THE_DEVICE = {SOURCE / "platforms", SOURCE / "kernels"}
"""Kernels are written for one device and launch on it; everything else asks the platform."""


def lines_with(pattern: re.Pattern[str], paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_private_parts_of_the_worker_stay_private():
    paths = [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if SOURCE / "runtime" not in path.parents and path != Path(__file__)
    ]
    assert len(paths) > 300
    assert list(lines_with(PRIVATE, paths)) == []


def test_only_platforms_and_kernels_know_the_device():
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if not KNOW_THE_DEVICE & {*path.parents}]
    assert len(paths) > 150
    assert list(lines_with(DEVICE, paths)) == []


@pytest.mark.parametrize(
    "line", ["step = llm.engine.worker._step", "graphs = owner._graphs", "worker._anything = 1", "x(worker._table)"]
)
def test_a_private_part_is_seen(line):
    assert PRIVATE.search(line)


@pytest.mark.parametrize("line", ['if device.type == "cuda":', "if x.type != 'cuda':", "torch.cuda.synchronize()"])
def test_a_device_is_seen(line):
    assert DEVICE.search(line)
