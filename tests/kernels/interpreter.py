"""Runs a program of this folder under Triton's interpreter, which is chosen before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path


def run_interpreted(program: str, *arguments: str) -> str:
    """The last line that the program prints; raises AssertionError where it does not end with exit code 0."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    path = Path(__file__).with_name(program)
    done = subprocess.run([sys.executable, str(path), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]
