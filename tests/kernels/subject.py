"""A kernel stack on a device, as the conformance checks see it: its kernels, random inputs for them, and limits."""

import torch
from torch import Tensor

from outrider.kernels import Kernels, load_kernels

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest relative RMS error, by dtype of the activations."""


class Subject:
    """Kernels under test. Inputs are made on the CPU, so they are the same for every stack and device."""

    def __init__(
        self,
        kernels: Kernels,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        is_interpreted: bool = False,
        oracle: Kernels | None = None,
    ) -> None:
        """dtype: of activations. oracle: None for the reference stack."""
        self.kernels, self.device, self.dtype = kernels, torch.device(device), dtype
        self.is_interpreted = is_interpreted
        self.oracle = oracle or load_kernels(("reference",))
        self._generator = torch.Generator().manual_seed(0)

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device, dtype or self.dtype)

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self._generator).to(self.device)

    def pick(self, count: int, *values: float, dtype: torch.dtype = torch.float32) -> Tensor:
        """[count] of `values` in turn."""
        return torch.tensor(values, dtype=dtype).repeat(-(-count // len(values)))[:count].to(self.device)

    def close(self, name: str, ours: Tensor, exact: Tensor, *, dtype: torch.dtype | None = None) -> None:
        """Relative RMS error; NaN on either side fails."""
        assert ours.shape == exact.shape, f"{name}: {tuple(ours.shape)} is not {tuple(exact.shape)}"
        error = float((ours.double() - exact).norm() / exact.double().norm().clamp(min=1e-30))
        assert error <= LIMITS[dtype or self.dtype], f"{name}: relative RMS error {error:.2e}"

    def same(self, name: str, ours: Tensor, expected: Tensor) -> None:
        assert ours.dtype == expected.dtype, f"{name}: {ours.dtype} is not {expected.dtype}"
        assert torch.equal(ours, expected), f"{name} differs:\n{ours}\n{expected}"
