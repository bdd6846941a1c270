"""Shared by the kernel tests: numbers of threads, a check that rows do not depend on each other, a third stack."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import outrider.kernels as package

COUNTS = [*range(1, 19), 31, 32, 33, 63, 64, 65, 100]
"""Numbers of rows for which every row must keep its bits."""


@pytest.fixture(params=sorted({1, 2, os.cpu_count() or 1}), ids=lambda count: f"{count} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def rows_are_invariant() -> Callable[..., None]:
    """Asserts that `function` of any selection of rows, in any order, gives the rows of `function` of all."""

    def check(function: Callable[..., Tensor], *inputs: Tensor, counts: list[int] = COUNTS) -> None:
        generator = torch.Generator().manual_seed(1)
        together = function(*inputs)
        assert torch.isfinite(together).all()
        for count in counts:
            chosen = torch.randperm(inputs[0].shape[0], generator=generator)[:count]
            alone = function(*(rows[chosen] for rows in inputs))
            assert torch.equal(alone, together[chosen]), f"rows changed in a call of {count}"

    return check


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a stack called `third`, empty except for __init__."""
    folder = tmp_path / "third"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    yield folder
    for name in [name for name in sys.modules if name.startswith(f"{package.__name__}.third")]:
        del sys.modules[name]
    vars(package).pop("third", None)
