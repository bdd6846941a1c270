"""The interface of a drafter, and finding one by name.

After a step is committed, a drafter proposes tokens for each row's next step, as many as the plan requests (0 … k). It
may be wrong, random, slow or broken: the verifier accepts by equality only. To add one, write one file with a class
`Drafter` and, if it has options of its own, a dataclass `Options`: in `drafters/`, whose files the conformance tests
list, or in any package of your own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.attention.caches.model_caches import CacheSpec, ModelCaches
from outrider.core import plugins
from outrider.core.config import EngineConfig, SpeculativeConfig
from outrider.core.errors import ConfigError
from outrider.core.model_config import ModelConfig
from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Verified
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM, Hidden
from outrider.platforms.base import BasePlatform
from outrider.speculation import drafters
from outrider.speculation.options import read_options


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterContext:
    """Everything a drafter is built from."""

    config: SpeculativeConfig
    options: Any
    """The drafter's own options: an instance of its module's `Options`."""
    engine: EngineConfig
    target_config: ModelConfig
    target: CausalLM
    layers: LayerContext
    platform: BasePlatform
    max_model_len: int
    read_config: Callable[[str], ModelConfig]
    """Reads the config of a model from its directory."""
    load_model: Callable[[str, ModelConfig], CausalLM]
    """Loads a whole model from its directory, for requests as long as the engine's longest."""

    @property
    def device(self) -> torch.device:
        return self.layers.device


class BaseDrafter(ABC):
    """Proposes tokens. Everything on the path of `propose` stays on the device."""

    is_row_invariant = True
    """False if acceptance counts may vary from run to run. The tokens never do."""
    is_capturable = True
    """False if `propose` does more than launch kernels: its steps are then not replayed as graphs."""
    num_lookahead = 0
    """Number of KV indices it writes after the last known token."""
    tap_layers: tuple[int, ...] = ()
    """Target layers whose residual stream the drafter reads: id k is the stream after k layers."""
    caches: ModelCaches
    """One cache for each of `cache_specs`; set by the engine before `attach`, without memory until `allocate`."""

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        """Shape of the cache of each layer of the drafter, in the engine's blocks; empty if it has no layers."""
        return ()

    @property
    def extra_bytes_per_block(self) -> int:
        """Bytes of device memory the drafter needs per block of the first group, beside the caches of its layers."""
        return 0

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that drafting reads in one step, all passes together."""
        return 0

    def __init__(self, context: DrafterContext) -> None:
        self.num_drafts = context.config.num_speculative_tokens
        limit = context.config.max_model_len
        self.position_limit = min(limit or context.max_model_len, context.max_model_len)

    def attach(self, table: RequestTable, staging: Staging) -> None:
        """Take the engine's request table and staging buffer; called once, before any step."""
        self.table = table
        self.staging = staging

    def allocate(self, num_blocks: Sequence[int]) -> None:
        """Allocate memory for this many blocks in each group of layers; called again when the numbers are known."""
        self.caches.allocate(num_blocks)

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Prepare the rows that start or resume in this step; the table already holds them."""

    @abstractmethod
    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        """Drafts [R, batch.num_proposals] int64 for every row of a committed step; an id out of range ends a row's
        drafts. More columns are cut off, fewer are allowed. With num_proposals 0 a drafter still updates its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDrafter:
    """A drafter that was found and whose options are checked; nothing is loaded yet."""

    make: type[BaseDrafter]
    options: Any
    """An instance of the module's `Options`."""


def find_drafter(config: SpeculativeConfig) -> FoundDrafter:
    """Find the drafter that `speculative_config` names: a file of `drafters/`, or a module outside this package.

    Raises ConfigError if there is no such module, if its `Drafter` is not a `BaseDrafter`, or if an option is not one
    of its own.
    """
    method = config.method
    module = plugins.find_or_import(drafters, method, what="drafter (speculative_config['method'])")
    make = getattr(module, "Drafter", None)
    if not (isinstance(make, type) and issubclass(make, BaseDrafter)):
        raise ConfigError(
            f"drafter (speculative_config['method']) {method!r}: the module has no class Drafter that inherits from"
            " outrider.speculation.drafter.BaseDrafter. Add one."
        )
    return FoundDrafter(make=make, options=read_options(module, config))
