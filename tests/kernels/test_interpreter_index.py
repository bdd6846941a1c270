"""The integer index kernels, run by Triton's interpreter on a CPU: they equal plain PyTorch on random steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("interpreted_index.py")


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    """What differed, by kernel; one process for all, as importing takes longer than checking."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kernel", ["assemble", "commit", "put_drafts", "chain_known", "chain_drafted"])
def test_the_interpreted_kernel_equals_plain_pytorch(kernel: str, failed: dict[str, str]) -> None:
    assert kernel not in failed, failed[kernel]
