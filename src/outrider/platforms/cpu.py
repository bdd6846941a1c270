"""The CPU: float32 throughout, on the plain PyTorch kernels."""

import os
import platform

import torch

from outrider.core.errors import ConfigError
from outrider.platforms.base import BasePlatform


class Platform(BasePlatform):
    """The host's processor. Bits depend on its capability and on the number of threads."""

    name = "cpu"
    kernel_stack = ("reference",)
    compiles_kernels = False
    attention_backends = ("oracle",)
    excluded_backends: dict[str, str] = {}  # noqa: RUF012 - a constant, read only
    is_exact = True
    has_graphs = False
    can_pool = True
    preference = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def accelerator(self) -> None:
        return None

    @property
    def total_memory(self) -> int:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    @property
    def summary(self) -> str:
        return f"this CPU ({torch.backends.cpu.get_cpu_capability()})"

    def resolve_dtype(self, name: str) -> torch.dtype:
        if name in ("auto", "float32"):
            return torch.float32
        raise ConfigError(f"dtype={name!r} cannot be used: a CPU computes in float32. Leave dtype at 'auto'.")

    def key(self, dtype: torch.dtype) -> dict[str, str]:
        return {
            "device": self.name,
            "machine": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernel_stack": ", ".join(self.kernel_stack),
        }
