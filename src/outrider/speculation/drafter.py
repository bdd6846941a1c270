"""The contract of a drafter, and finding one by name.

A drafter sees the step that has just been committed and proposes tokens for each row's next one, as many as the step
asks for (0 … k). It may be wrong, random, slow or broken: the verifier accepts by equality only. To add one, write one
file with a class `Drafter`: in `drafters/`, whose files the conformance tests list, or in any package of your own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core import plugins
from outrider.core.config import EngineConfig, SpeculativeConfig
from outrider.core.errors import ConfigError
from outrider.core.model_config import ModelConfig
from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.layers.context import LayerContext
from outrider.layers.decoder import CausalLM, Hidden
from outrider.platforms.base import BasePlatform
from outrider.sampling.verifier import Verified
from outrider.speculation import drafters


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterContext:
    """What a drafter is built from."""

    config: SpeculativeConfig
    engine: EngineConfig
    target_config: ModelConfig
    target: CausalLM
    layers: LayerContext
    platform: BasePlatform
    max_model_len: int
    block_size: int
    load_model: Callable[[str, ModelConfig], CausalLM]
    """A whole model from its directory, for the engine's longest request."""

    @property
    def device(self) -> torch.device:
        return self.layers.device


class BaseDrafter(ABC):
    """Proposes tokens. Everything on the path of `propose` stays on the device."""

    is_row_invariant = True
    """False: acceptance counts may vary from run to run. The tokens cannot."""
    is_capturable = True
    """False: `propose` does more than launch kernels, so no step with it is replayed as a graph."""
    num_lookahead = 0
    """KV indices it writes behind the last known token."""
    tap_layers: tuple[int, ...] = ()
    """Target layers whose residual stream it reads: id k is the stream after k layers."""

    @property
    def bytes_per_block(self) -> int:
        """Memory it needs for each KV block."""
        return 0

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that drafting reads in one step, all passes together."""
        return 0

    def __init__(self, context: DrafterContext) -> None:
        self.num_drafts = context.config.num_speculative_tokens
        limit = context.config.max_model_len
        self.position_limit = min(limit or context.max_model_len, context.max_model_len)

    def refuse_options(self, config: SpeculativeConfig, known: tuple[str, ...] = ()) -> None:
        """An option of another drafter is an error, not ignored."""
        for name in config.options:
            if name not in known:
                raise ConfigError(f"drafter {config.method!r} has no option {name!r}. Known: {list(known)}.")

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """Allocate KV memory for the engine's blocks; called once."""

    def attach(self, table: RequestTable, staging: Staging) -> None:
        """The request table and staging buffer of the engine; called once, before any step."""
        self.table = table
        self.staging = staging

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Rows that start or resume in this step; the table already holds them."""

    @abstractmethod
    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        """Drafts [R, batch.num_proposals] int64 for every row of a committed step; ids out of range end a row's
        drafts. More columns are cut off, fewer are no error. With 0 there is still state to keep."""


def load_drafter(context: DrafterContext) -> BaseDrafter:
    """Build the drafter that `speculative_config` names: a file of `drafters/`, or a module outside this package.

    Raises ConfigError where there is no such module, or where its `Drafter` is not a `BaseDrafter`.
    """
    method = context.config.method
    module = plugins.find_or_import(drafters, method, what="drafter (speculative_config['method'])")
    make = getattr(module, "Drafter", None)
    if not (isinstance(make, type) and issubclass(make, BaseDrafter)):
        raise ConfigError(
            f"drafter (speculative_config['method']) {method!r}: the module has no class Drafter that inherits from"
            " outrider.speculation.drafter.BaseDrafter. Add one."
        )
    drafter: BaseDrafter = make(context)
    return drafter
