"""The integer index kernels, run by Triton's interpreter on a CPU: they equal plain PyTorch on random steps."""

import json

import pytest

from tests.kernels.interpreter import run_interpreted


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    """What differed, by kernel; one process for all, as importing takes longer than checking."""
    return json.loads(run_interpreted("interpreted_index.py"))


@pytest.mark.parametrize("kernel", ["assemble", "commit", "put_drafts", "chain_known", "chain_drafted"])
def test_the_interpreted_kernel_equals_plain_pytorch(kernel: str, failed: dict[str, str]) -> None:
    assert kernel not in failed, failed[kernel]
