"""Every kernel stack of the folder is compared numerically: one check for each function of the interface.

Stacks for a CPU run as they are, those for a GPU under Triton's interpreter where they can; `tests/gpu` runs the same
checks on a GPU.
"""

import json
from functools import cache
from pathlib import Path

import pytest

from outrider.kernels import load_kernels, stack_names
from outrider.kernels.stacks import exports
from tests.kernels.conformance import CHECKS, COVERED, device_of, needs_gpu
from tests.kernels.interpreter import run_interpreted
from tests.kernels.subject import Subject

ON_CPU = [stack for stack in stack_names() if device_of(stack) == "cpu"]
ON_GPU = [stack for stack in stack_names() if device_of(stack) != "cpu"]


def test_every_function_of_the_interface_has_a_check() -> None:
    assert CHECKS.keys() == set(COVERED)


@pytest.mark.parametrize("function", COVERED)
@pytest.mark.parametrize("stack", ON_CPU)
def test_a_function_is_right(stack: str, function: str) -> None:
    if function not in exports(stack):
        pytest.skip(f"{stack} has no {function}")
    CHECKS[function](Subject(load_kernels((stack, "reference"))))


@cache
def _failed(stack: str) -> dict[str, str]:
    """Failures under the interpreter; one process for all functions, as importing takes longer than checking."""
    failed: dict[str, str] = json.loads(run_interpreted("conformance.py", stack))
    return failed


@pytest.mark.slow
@pytest.mark.parametrize("function", COVERED)
@pytest.mark.parametrize("stack", ON_GPU)
def test_an_interpreted_function_is_right(stack: str, function: str) -> None:
    if function not in exports(stack):
        pytest.skip(f"{stack} has no {function}")
    if function in needs_gpu(stack):
        pytest.skip(f"on a GPU only: {needs_gpu(stack)[function]}")
    assert function not in _failed(stack), _failed(stack)[function]


@pytest.mark.parametrize("stack", ON_GPU)
def test_only_functions_are_left_to_a_gpu(stack: str) -> None:
    assert needs_gpu(stack).keys() <= exports(stack).keys()


WRONG = """
from outrider.kernels.reference.norm import rms_norm as right

def rms_norm(x, weight, eps, *, plus_one=False, casts_last=False):
    return right(x, weight, eps) * 1.0001
"""


def test_a_wrong_function_of_a_new_stack_is_seen(third: Path) -> None:
    (third / "norm.py").write_text(WRONG)
    assert "third" in stack_names() and device_of("third") == "cpu"
    with pytest.raises(AssertionError, match=r"rms_norm .*relative RMS error 1\.0"):
        CHECKS["rms_norm"](Subject(load_kernels(("third", "reference"))))
