"""The interface of the kernels: what every stack provides to the engine, by subject, and the data types that cross it.

The functions of all stacks are row-invariant: the result of a token has the same bits whatever else is in the call.
Nothing here computes; a stack is a folder beside this one.
"""

from typing import Protocol

from outrider.kernels.interface.cache import CacheKernels
from outrider.kernels.interface.model import ModelKernels
from outrider.kernels.interface.sampling import SamplingKernels
from outrider.kernels.interface.state import StateKernels
from outrider.kernels.interface.step import StepKernels

SUBJECTS = (ModelKernels, CacheKernels, StateKernels, StepKernels, SamplingKernels)


class Kernels(ModelKernels, CacheKernels, StateKernels, StepKernels, SamplingKernels, Protocol):
    """All kernels that the engine calls, joined from one or more stacks."""

    origins: dict[str, str]
    """The stack that each function comes from, by the function's name."""


FUNCTIONS = tuple(name for subject in SUBJECTS for name in vars(subject) if not name.startswith("_"))
"""Names of all functions of the interface."""
