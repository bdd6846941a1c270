"""Drafts with the target's own prediction modules (multi-token prediction): the first reads the target's hidden states,
each other one the output of the one before, and for drafts beyond them the last reads its own output.

A family's file in `models/` says what its modules look like, `layers/mtp.py` computes them, and
`speculation/module_chain.py` has everything about indices, KV and blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec
from outrider.core.errors import CheckpointError, ConfigError, UnsupportedError
from outrider.core.quantization.scheme import Quantization
from outrider.core.quantization.while_loading import quantised_while_loading
from outrider.layers.assignment import assign_formats
from outrider.layers.decoder import Hidden
from outrider.layers.mtp import MtpForm, MtpModule
from outrider.loading.checkpoint import Checkpoint
from outrider.loading.dummy import fill_randomly
from outrider.loading.hf import read_json
from outrider.loading.load import load_into
from outrider.loading.names import bare_name, modules_in_files
from outrider.speculation.drafter import DrafterContext
from outrider.speculation.module_chain import ModuleChain
from outrider.speculation.options import check_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "mtp"."""

    model: str | None = None
    """Directory with the weights of the modules; None: the target's."""

    def __post_init__(self) -> None:
        if self.model is not None:
            check_directory("model", self.model)


class Drafter(ModuleChain):
    """`method: "mtp"`; modules after the last draft are not used."""

    def __init__(self, context: DrafterContext) -> None:
        config = context.target.config
        modules = load_modules(context)[: context.config.num_speculative_tokens]
        super().__init__(context, feature_size=config.hidden_size, num_modules=len(modules))
        self._target = context.target
        self.modules = modules
        self._token_ids = torch.arange(config.vocab_size, device=context.device)

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        return tuple(module.cache_spec for module in self.modules)

    @property
    def bytes_per_step(self) -> int:
        """The modules in all their passes, and the target's head for every draft; only single rows of the embedding are
        read. Module m goes over known tokens once, and over m - 1 drafts; the last over all drafts but one."""
        passes = [1 + index for index in range(self.num_modules)]
        passes[-1] += self.num_drafts - self.num_modules
        sizes = (sum(parameter.nbytes for parameter in module.parameters()) for module in self.modules)
        read = sum(count * size for count, size in zip(passes, sizes, strict=True))
        return read + self.num_drafts * self._target.lm_head.num_bytes

    @property
    def draft_token_ids(self) -> Tensor:
        return self._token_ids

    def features(self, hidden: Hidden) -> Tensor:
        return hidden.last

    def run(self, module: int, features: Tensor, batch: ForwardBatch) -> Tensor:
        embedded = self._target.embed(batch)
        made: Tensor = self.modules[module](embedded, features, batch, self.caches[module], self.caches.begin(batch))
        return made

    def draft_logits(self, state: Tensor) -> Tensor:
        return self._target.logits(state)


def load_modules(context: DrafterContext) -> list[MtpModule]:
    """The modules with their weights, which are stored among those of a model."""
    form, config = context.target.mtp, context.target.config
    if form is None:
        raise ConfigError(
            f"speculative_config: method 'mtp' needs a target with a prediction module, and {config.architecture!r} "
            "has none. Use another method."
        )
    if config.num_mtp_layers > len(form.prefixes):
        raise UnsupportedError(
            f"config.json states {config.num_mtp_layers} prediction layers, which is not supported for"
            f" {config.architecture!r}. Supported: {len(form.prefixes)}."
        )
    options: Options = context.options
    directory = options.model or context.engine.model
    target = context.target
    target.context = replace(target.context, assigns_formats=True)
    modules = [target.build_mtp() for _ in form.prefixes]
    _fill(modules, form, context, directory)
    return modules


def _fill(modules: Sequence[MtpModule], form: MtpForm, context: DrafterContext, directory: str) -> None:
    """Give the modules their formats and weights; the names of all are in one list."""
    target, listed = context.target, nn.ModuleList(modules)
    if context.engine.load_format == "dummy":
        assign_formats(listed, _quantization(context, directory, frozenset()), target.context.kernels, where=directory)
        fill_randomly(listed, context.engine.seed)
        return
    _refuse_other_forms(directory)
    checkpoint = Checkpoint(directory)
    names = {name for name in checkpoint.names if bare_name(name).startswith(form.all_prefixes)}
    if not names:
        prefixes = " or ".join(map(repr, form.all_prefixes))
        raise CheckpointError(
            f"{directory} has no prediction module: no tensor's name starts with {prefixes}. Set "
            "speculative_config['model'] to a directory that has one."
        )
    copies = {prefix + name: own for prefix in form.prefixes for name, own in form.copies.items()}
    copied = {name for name in names if bare_name(name) in copies}
    for name, tensor in checkpoint.tensors(copied):
        _check_copy(name, tensor, target.get_parameter(copies[bare_name(name)]), where=directory)
    renames = dict(_renames(form))
    in_files = modules_in_files(names - copied, renames)
    assign_formats(
        listed,
        _quantization(context, directory, frozenset(in_files.values())),
        target.context.kernels,
        where=directory,
        name_of=lambda name: in_files.get(name, name),
    )
    load_into(listed, checkpoint.tensors(names - copied), where=directory, renames=renames)


def _renames(form: MtpForm) -> Iterator[tuple[str, str]]:
    """Leading parts of names in the files, and in the list of modules."""
    for index, prefix in enumerate(form.prefixes):
        for old, new in form.renames.items():
            yield prefix + old, f"{index}.{new}"


def _check_copy(name: str, tensor: Tensor, own: Tensor, *, where: str) -> None:
    """A module's tables must be those of the model, which it uses."""
    if tensor.shape != own.shape or not (tensor.is_meta or torch.equal(tensor.to(own), own)):
        raise CheckpointError(
            f"{where}: {name!r} is not the model's own table, and a prediction module with another one is not"
            " supported. Use the files of one release."
        )


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
