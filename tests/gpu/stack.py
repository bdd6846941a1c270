"""The kernel stack under test: Hopper's over the portable one, or the order in OUTRIDER_KERNELS."""

import importlib
import os
import types

from outrider.platforms.cuda import KERNELS

ORDER = tuple(name.strip() for name in os.environ.get(KERNELS, "hopper,triton").split(","))


def kernel_module(name: str) -> types.ModuleType:
    """The module of the first stack, such as "linear"."""
    return importlib.import_module(f"outrider.kernels.{ORDER[0]}.{name}")
