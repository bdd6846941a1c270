"""The integer parts of the sampling kernels, run by Triton's interpreter on a CPU: they equal plain PyTorch."""

import json

import pytest

from tests.kernels.interpreter import run_interpreted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    """What differed, by kernel; one process for all, as importing takes longer than checking."""
    return json.loads(run_interpreted("interpreted_sampling.py"))


@pytest.mark.parametrize("kernel", ["argmax", "hash_rows", "logprobs", "noise", "verify", "drawn"])
def test_the_interpreted_kernel_equals_plain_pytorch(kernel: str, failed: dict[str, str]) -> None:
    assert kernel not in failed, failed[kernel]
