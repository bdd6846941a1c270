"""Gated DeltaNet's kernels, run by Triton's interpreter on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("interpreted_gated_delta.py")


def test_the_interpreted_kernels_equal_plain_pytorch_and_themselves() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
