"""Benchmarks without a GPU: every module imports, and the engine accepts the configs of every workload."""

import importlib
from pathlib import Path

import pytest

from benchmarks.decode import WORKLOADS, write_configs
from outrider.loading.hf import open_config
from outrider.models import read_model_config
from outrider.speculation.eagle3_config import read_eagle3_config

OTHERS_LIBRARIES = {"encoders", "grammar_masks"}
"""Compares with a library that the project does not install."""
MODULES = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "benchmarks").glob("[a-z]*.py")
    if path.stem not in OTHERS_LIBRARIES
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_imports(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_engine_accepts_the_configs_of_a_workload(name: str, tmp_path: Path) -> None:
    """A key that the readers refuse would stop the benchmark on the machine that has the GPU."""
    target, head = write_configs(tmp_path, WORKLOADS[name])
    config = read_model_config(target)
    if WORKLOADS[name].head is not None:
        read_eagle3_config(open_config(head), target=config, tap_layers=None)
