"""AMD's GPUs, on the portable Triton kernels, which compile for them. The engine was not seen working on one.

An engine checks its kernels when it starts, and is exact if they pass; device="auto" does not choose this platform.
"""

import torch
import triton

from outrider.core.errors import ConfigError
from outrider.platforms.base import Capability, GpuPlatform

_ARCHS = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""CDNA 2 to 4, RDNA 3 and 4: ROCm builds of PyTorch support them, and they compute in bfloat16."""


class Platform(GpuPlatform):
    """The current ROCm device."""

    name = "rocm"
    stack = "ROCm"
    kernel_stack = ("triton",)
    compiles_kernels = True
    attention_backends = ("triton",)
    excluded_backends = {"oracle": "plain PyTorch on a GPU is not row-invariant"}  # noqa: RUF012 - a constant
    is_exact = False
    is_checked_at_start = True
    has_graphs = True

    @classmethod
    def refuses(cls, capability: Capability) -> str | None:
        if not capability.arch.startswith(_ARCHS):
            return f"{capability.arch} is not one of {', '.join(name + '*' for name in _ARCHS)}"
        return None

    def resolve_dtype(self, name: str) -> torch.dtype:
        if name in ("auto", "bfloat16"):
            return torch.bfloat16
        raise ConfigError(f"dtype={name!r} cannot be used: the GPU's kernels compute in bfloat16. Leave it at 'auto'.")

    def key(self, dtype: torch.dtype) -> dict[str, str]:
        return {
            "device": self.name,
            "kind": self.capability.name,
            "capability": self.capability.arch,
            "hip": self.capability.runtime,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernel_stack": ", ".join(self.kernel_stack),
        }
