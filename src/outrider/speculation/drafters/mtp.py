"""Drafts with the target's own prediction module (multi-token prediction): its first pass reads the target's hidden
states, each further pass its own output.

A family's file in `models/` says what its module looks like, `layers/mtp.py` computes it, and `speculation/chain.py`
has everything about indices, KV and blocks.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.quantization.scheme import Quantization
from outrider.core.quantization.while_loading import quantised_while_loading
from outrider.layers.assignment import assign_formats
from outrider.layers.decoder import Hidden
from outrider.layers.mtp import MtpModule
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.dummy import fill_randomly
from outrider.loading.hf import read_json
from outrider.loading.load import load_into
from outrider.loading.names import bare_name, modules_in_files
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter import DrafterContext
from outrider.speculation.options import check_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "mtp"."""

    model: str | None = None
    """Directory with the module's weights; None: the target's."""

    def __post_init__(self) -> None:
        if self.model is not None:
            check_directory("model", self.model)


class Drafter(ChainDrafter):
    """`method: "mtp"`; one prediction layer, used for every draft."""

    def __init__(self, context: DrafterContext) -> None:
        config = context.target.config
        super().__init__(context, feature_size=config.hidden_size)
        self._target = context.target
        self._module = _load_module(context)
        self._token_ids = torch.arange(config.vocab_size, device=context.device)

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        return (self._module.cache_spec,)

    @property
    def bytes_per_step(self) -> int:
        """The module and the target's head in every pass; only single rows of the embedding are read."""
        module = sum(parameter.nbytes for parameter in self._module.parameters())
        return self.num_drafts * (module + self._target.lm_head.num_bytes)

    @property
    def draft_token_ids(self) -> Tensor:
        return self._token_ids

    def features(self, hidden: Hidden) -> Tensor:
        return hidden.last

    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        embedded = self._target.embed(batch)
        return self._module(embedded, features, batch, self.caches[0], self.caches.begin(batch))

    def draft_logits(self, state: Tensor) -> Tensor:
        return self._target.logits(state)


def _load_module(context: DrafterContext) -> MtpModule:
    """The module with its weights, which are stored among those of a model."""
    form, config = context.target.mtp, context.target.config
    if form is None:
        raise ConfigError(
            f"speculative_config: method 'mtp' needs a target with a prediction module, and {config.architecture!r} "
            "has none. Use another method."
        )
    if config.num_mtp_layers > 1:
        raise UnsupportedError(
            f"config.json states {config.num_mtp_layers} prediction layers, which is not supported. Supported: 1."
        )
    options: Options = context.options
    directory = options.model or context.engine.model
    target = context.target
    target.context = replace(target.context, assigns_formats=True)
    module = target.build_mtp()
    if context.engine.load_format == "dummy":
        assign_formats(module, _quantization(context, directory, frozenset()), target.context.kernels, where=directory)
        fill_randomly(module, context.engine.seed)
        return module
    _refuse_other_forms(directory)
    checkpoint = Checkpoint(directory)
    names = {name for name in checkpoint.names if bare_name(name).startswith(form.prefix)}
    if not names:
        raise CheckpointError(
            f"{directory} has no prediction module: no tensor's name starts with {form.prefix!r}. Set "
            "speculative_config['model'] to a directory that has one."
        )
    renames = {form.prefix + old: new for old, new in form.renames.items()}
    in_files = modules_in_files(names, renames)
    assign_formats(
        module,
        _quantization(context, directory, frozenset(in_files.values())),
        target.context.kernels,
        where=directory,
        name_of=lambda name: in_files.get(name, name),
    )
    load_into(module, checkpoint.tensors(names), where=directory, renames=renames)
    return module


def _quantization(context: DrafterContext, directory: str, modules: frozenset[str]) -> Quantization | None:
    """The schemes of the prediction module: those of the target's files, if they hold it and quantise one of `modules`,
    its parts, or the drafter's own option."""
    found = context.target_config.quantization if directory == context.engine.model else None
    if found is not None and (found.is_chosen_here or not any(map(found.scheme_of, modules))):
        found = None
    chosen = context.config.quantization
    return quantised_while_loading(found, chosen, where=directory)


def _refuse_other_forms(directory: str) -> None:
    """Refuse a module in the speculators format: it has other names, and for MiMo another order of inputs."""
    if not (Path(directory) / "config.json").is_file():
        return
    kind = read_json(directory, "config.json").get("speculators_model_type")
    if kind is not None:
        raise UnsupportedError(
            f"{directory}: speculators_model_type={kind!r} is not supported by method 'mtp'. Use a directory that "
            "has the module under the names of the model's release."
        )
