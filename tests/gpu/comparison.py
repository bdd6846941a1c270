"""Error limits of a kernel against arithmetic in double precision, and replaying it with other data."""

from collections.abc import Callable

import torch
from torch import Tensor

LIMITS = {
    ("linear", torch.bfloat16): 3e-3,
    ("linear", torch.float16): 4e-4,
    ("linear", torch.float32): 2e-6,
    ("linear, fp32 out", torch.bfloat16): 2e-5,
    ("attention", torch.bfloat16): 5e-3,
    ("attention", torch.float16): 1e-3,
    ("norm", torch.bfloat16): 4e-3,
    ("norm", torch.float32): 1e-6,
    ("activation", torch.bfloat16): 4e-3,
    ("rope", torch.bfloat16): 4e-3,
}
"""Largest relative RMS error."""


def relative_rms(result: Tensor, exact: Tensor) -> float:
    """NaN where the result has one."""
    return ((result.double() - exact).norm() / exact.norm().clamp(min=1e-300)).item()


def assert_close(kernel: str, result: Tensor, exact: Tensor, *, dtype: torch.dtype) -> None:
    error = relative_rms(result, exact)
    assert error <= LIMITS[kernel, dtype], f"{kernel} {dtype}: relative RMS error {error:.2e}"


def replayed(run: Callable[[], Tensor], change_inputs: Callable[[], None]) -> Tensor:
    """The result of a captured graph, replayed after its inputs were changed in place."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    change_inputs()
    graph.replay()
    return result.clone()
