"""What the engine asks of a kind of device: its dtype, its kernels and how far its results can be repeated.

Knows nothing of models or memory sizing. A platform is a file of this folder that exports `Platform`.
"""

from abc import ABC, abstractmethod

import torch

import outrider.platforms as package
from outrider.core import plugins
from outrider.core.errors import ConfigError, UnsupportedError

_LATER = ("rocm",)


class BasePlatform(ABC):
    """One kind of device. Two runs whose `key()` is equal give equal bits."""

    name: str
    """File name, and the value of the option `device`."""
    kernels: str
    """Name that `outrider.kernels.load_kernels` takes."""
    attention_backends: tuple[str, ...]
    """Names in order of preference."""
    excluded_backends: dict[str, str]
    """Backends that cannot run here, with the reason."""
    is_exact: bool
    """True where every kernel on the target's path is row-invariant."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device that tensors are made on."""

    @abstractmethod
    def resolve_dtype(self, name: str) -> torch.dtype:
        """Compute and KV dtype for the option `dtype`; `ConfigError` where it cannot be had."""

    @abstractmethod
    def key(self, dtype: torch.dtype) -> dict[str, str]:
        """All that the bits of a result depend on besides the model and the attention backend."""


def select_platform(name: str) -> BasePlatform:
    """The platform called `name`; "auto" takes a GPU if PyTorch finds one."""
    if name in _LATER and name not in platform_names():
        raise UnsupportedError(f"device={name!r} is not built yet. Use device='cpu'.")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if chosen not in platform_names():
        raise ConfigError(f"device={name!r} is not known. Known: auto, {', '.join(platform_names())}.")
    platform: BasePlatform = plugins.find(package, chosen, what="device").Platform()
    return platform


def platform_names() -> list[str]:
    """The platforms that are built, sorted."""
    return [name for name in plugins.names(package) if name != "base"]
