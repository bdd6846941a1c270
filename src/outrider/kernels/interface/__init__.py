"""The interface of the kernels: what every stack provides to the engine, by subject, and the data types that cross it.

The functions of all stacks are row-invariant: the result of a token has the same bits whatever else is in the call.
Nothing here computes; a stack is a folder beside this one.
"""

from typing import Protocol

from outrider.kernels.interface.cache import CacheKernels
from outrider.kernels.interface.clamped import ClampedKernels
from outrider.kernels.interface.encoder import EncoderKernels
from outrider.kernels.interface.latent import GroupedRouterKernels, LatentKernels
from outrider.kernels.interface.model import ModelKernels
from outrider.kernels.interface.pooling import PoolingKernels
from outrider.kernels.interface.quantised import QuantisedKernels
from outrider.kernels.interface.sampling import SamplingKernels
from outrider.kernels.interface.state import StateKernels
from outrider.kernels.interface.step import StepKernels

SUBJECTS = (ModelKernels, CacheKernels, StateKernels, StepKernels, SamplingKernels)
OPTIONAL = {
    "route": (QuantisedKernels, ClampedKernels, EncoderKernels, GroupedRouterKernels, PoolingKernels),
    "paged_attention": (LatentKernels,),
}
"""Subjects that an order of stacks may lack, by the function that decides which stack they come from."""


class Kernels(
    ModelKernels,
    CacheKernels,
    StateKernels,
    StepKernels,
    SamplingKernels,
    QuantisedKernels,
    ClampedKernels,
    EncoderKernels,
    GroupedRouterKernels,
    LatentKernels,
    PoolingKernels,
    Protocol,
):
    """All kernels that the engine calls, joined from one or more stacks. Those of `OPTIONAL` may be absent."""

    origins: dict[str, str]
    """The stack that each function of FUNCTIONS comes from, by the function's name."""


FUNCTIONS = tuple(name for subject in SUBJECTS for name in vars(subject) if not name.startswith("_"))
"""Names of the functions that every order of stacks has."""

OPTIONAL_FUNCTIONS = tuple(
    name for subjects in OPTIONAL.values() for subject in subjects for name in vars(subject) if not name.startswith("_")
)
"""Names of the functions that an order of stacks may lack."""

ENCODER_FUNCTIONS = tuple(name for name in vars(EncoderKernels) if not name.startswith("_"))
"""Those of encoders; an order of stacks has all or none of them."""
