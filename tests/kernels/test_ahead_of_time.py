"""The portable stack compiles for every kind of GPU that it names, within the limits of each; no GPU is needed."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from outrider.kernels.stacks import exports
from tests.kernels.ahead_of_time import SHARED_BYTES

_FRAME_BYTES = 128
"""Local memory of a thread that is let pass: the shapes of the checks are odd, so that every element has an address of
its own; with those of released models the kernels of decoding need none."""
DECODE_PATH = {"_linear_kernel", "attention_kernel", "combine_kernel", "_down_kernel", "rule_kernel", "_norm_kernel"}


@cache
def compiled(target: str) -> dict[str, Any]:
    program = Path(__file__).with_name("ahead_of_time.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-O", str(program), target], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", SHARED_BYTES)
def test_every_function_compiles_within_the_limits_of_a_gpu(target: str) -> None:
    found = compiled(target)
    assert not found["failed"]
    assert len(found["kernels"]) > 35 and len(exports("triton")) > 30
    for name, needs in found["kernels"].items():
        assert needs["shared"] <= SHARED_BYTES[target], f"{name}: {needs}"
        if name in DECODE_PATH:
            assert needs["spilled"] <= _FRAME_BYTES, f"{name}: {needs}"
    assert found["kernels"].keys() >= DECODE_PATH
