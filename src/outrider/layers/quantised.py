"""Parts of the formats of quantised weights: rounding to a type with scales, checks of scales, kernels that lack."""

from collections.abc import Callable

import torch
from torch import Tensor

from outrider.kernels import Kernels

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Types of scales in files."""

E4M3_LARGEST = 448.0


def missing_kernels(kernels: Kernels, *names: str) -> str | None:
    """A sentence about those of the kernels `names` that the stacks lack; None if there are all."""
    missing = [name for name in names if not hasattr(kernels, name)]
    if not missing:
        return None
    stacks = ", ".join(dict.fromkeys(kernels.origins.values()))
    return f"the kernels of this platform ({stacks}) have no {', '.join(missing)}"


def check_finite(tensor: Tensor) -> None:
    """Raises ValueError where a scale, or a weight to be rounded, is infinite or not a number."""
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError("holds infinities or values that are not numbers. Download it again, or quantise it again.")


def largest_of(destination: Tensor) -> Callable[[Tensor], None]:
    """A fill that keeps the largest of all values that come; `destination` [1] holds 0 at first."""

    def fill(found: Tensor) -> None:
        check_finite(found)
        if float(found) <= 0:
            raise ValueError(f"is {float(found)}, and a scale is positive. Quantise the model again.")
        torch.maximum(destination, found.reshape(1).to(destination), out=destination)

    return fill


def scale_of(largest: Tensor, limit: float) -> Tensor:
    """The scale of elements whose largest magnitude is `largest`, so that it becomes `limit`; fp32."""
    return largest.float().clamp(min=1e-12) / limit


def next_power_of_two(scales: Tensor) -> Tensor:
    """The smallest powers of two that are not less; exact."""
    mantissa, exponent = torch.frexp(scales)
    return torch.ldexp(torch.ones_like(scales), exponent - (mantissa == 0.5).int())


def rounded(values: Tensor, scales: Tensor, dtype: torch.dtype, limit: float) -> Tensor:
    """values / scales, cut to ± limit and rounded to nearest, ties to even."""
    scaled = (values.float() / scales).clamp(-limit, limit)
    return scaled.to(dtype) if dtype.is_floating_point else scaled.round().to(dtype)
