"""Gated DeltaNet's kernels, run by Triton's interpreter on a CPU."""

import pytest

from tests.kernels.interpreter import run_interpreted


@pytest.mark.slow
def test_the_interpreted_kernels_equal_plain_pytorch_and_themselves() -> None:
    assert run_interpreted("interpreted_gated_delta.py") == "all equal"
