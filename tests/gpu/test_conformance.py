"""Every kernel stack of the folder that is for a GPU is compared numerically: the checks of tests/kernels."""

import functools
import types
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from outrider.kernels import FUNCTIONS, Kernels, load_kernels, stack_names
from outrider.kernels.stacks import exports
from tests.kernels.conformance import CHECKS, device_of
from tests.kernels.subject import Subject

ON_GPU = [stack for stack in stack_names() if device_of(stack) == "cuda"]


def _in_any_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """Plain PyTorch may use atomics on a GPU: it adds integers, or one number to a place."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        torch.use_deterministic_algorithms(False)
        try:
            return function(*args, **options)
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)

    return run


def _oracle() -> Kernels:
    plain = load_kernels(("reference",))
    functions = {name: _in_any_order(getattr(plain, name)) for name in FUNCTIONS}
    return cast(Kernels, types.SimpleNamespace(**functions, origins=plain.origins))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("stack", ON_GPU)
def test_a_function_is_right(stack: str, function: str) -> None:
    if function not in exports(stack):
        pytest.skip(f"{stack} has no {function}")
    kernels = load_kernels((stack, "reference"))
    CHECKS[function](Subject(kernels, device="cuda", dtype=torch.bfloat16, oracle=_oracle()))
