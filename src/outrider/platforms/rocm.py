"""AMD's GPUs, with the plain PyTorch kernels, which run anywhere. The engine is untested on them.

They have no kernels of their own. It is not known whether PyTorch's matrix products give the same bits in every batch
there, so the platform does not claim to be exact, and device="auto" does not choose it.
"""

import torch

from outrider.core.errors import ConfigError
from outrider.platforms.base import Capability, GpuPlatform

_DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}

_ARCHS = ("gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""CDNA 2 to 4, RDNA 3 and 4: ROCm builds of PyTorch support them, and they compute in bfloat16."""


class Platform(GpuPlatform):
    """The current ROCm device."""

    name = "rocm"
    stack = "ROCm"
    kernel_stack = ("reference",)
    compiles_kernels = False
    attention_backends = ("oracle",)
    excluded_backends = {  # noqa: RUF012 - a constant, read only
        "triton": "its kernels compile for AMD's GPUs, but have never run on one"
    }
    is_exact = False
    has_graphs = False

    @classmethod
    def refuses(cls, capability: Capability) -> str | None:
        if not capability.arch.startswith(_ARCHS):
            return f"{capability.arch} is not one of {', '.join(name + '*' for name in _ARCHS)}"
        return None

    def resolve_dtype(self, name: str) -> torch.dtype:
        if name not in _DTYPES:
            raise ConfigError(f"dtype={name!r} cannot be used on {self.name}; it takes {', '.join(_DTYPES)}.")
        return _DTYPES[name]

    def key(self, dtype: torch.dtype) -> dict[str, str]:
        return {
            "device": self.name,
            "kind": self.capability.name,
            "capability": self.capability.arch,
            "hip": self.capability.runtime,
            "torch": torch.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernel_stack": ", ".join(self.kernel_stack),
        }
