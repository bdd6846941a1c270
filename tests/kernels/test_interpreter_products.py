"""Products of the portable stack, run by Triton's interpreter on a CPU."""

import pytest

from tests.kernels.interpreter import run_interpreted


@pytest.mark.slow
def test_interpreted_products_do_not_depend_on_the_batch() -> None:
    assert run_interpreted("interpreted_products.py") == "all equal"
