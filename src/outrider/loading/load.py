"""Fills a module from named tensors, and checks that every weight was filled and every tensor used."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from outrider.core.errors import CheckpointError
from outrider.loading.names import bare_name, is_ignored, module_name
from outrider.loading.slot import Destination, Slot

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_TABLES = (torch.int64, torch.bool)
"""dtypes of tables of ids and marks; files may hold them as any type of integer."""

_LISTED = 8
"""Names shown in an error; the rest are counted."""


@runtime_checkable
class HasParts(Protocol):
    """A module whose parameters a checkpoint holds in parts: fused projections, the experts of a mixture."""

    takes_whole: bool
    """True if a checkpoint may also hold a parameter whole, under its own name; `whole` gives its destination."""
    storage: frozenset[str]
    """Names of parameters that a checkpoint does not have: parts of other names fill them."""

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Destination]]:
        """The parts of each parameter of the module called `prefix`, by their full names; together they are all of it.

        A parameter that is neither listed nor in `storage` is held whole.
        """

    def whole(self, name: str) -> Destination | None:
        """The destination of the tensor that holds the parameter `name` whole; None if no checkpoint has it."""

    def encoders(self, prefix: str) -> Iterator[tuple[str, Tensor, Callable[[Tensor], None]]]:
        """(name of a matrix that is quantised, an empty tensor of its shape and device, what stores its values)."""


@dataclass(slots=True)
class Targets:
    """Destinations of tensors, by their names inside the module."""

    tensors: dict[str, Destination] = field(default_factory=dict)
    """Parameters, persistent buffers, and the row slices of fused ones."""
    wholes: dict[str, tuple[Destination, tuple[str, ...]]] = field(default_factory=dict)
    """Parameters whose parts are in `tensors`: where the whole goes, and the names of its parts."""
    tied: dict[str, str] = field(default_factory=dict)
    """A second name of a tensor -> its first; it need not be in the checkpoint."""


def targets_of(module: nn.Module) -> Targets:
    """The tensors that a checkpoint has to fill: parameters, or their parts for a module that has parts."""
    targets = Targets()
    first_names: dict[int, str] = {}
    for prefix, child in module.named_modules():
        has_parts = isinstance(child, HasParts)
        parts_of = child.parts(prefix) if isinstance(child, HasParts) else {}
        for name, parts in parts_of.items():
            targets.tensors |= parts
            if has_parts and child.takes_whole and (whole := child.whole(name)) is not None:
                targets.wholes[_join(prefix, name)] = (whole, tuple(parts))
        for name, tensor in child.state_dict(keep_vars=True).items():
            if "." in name or name in parts_of or (has_parts and name in child.storage):
                continue  # a grandchild's, which comes by itself, or held in parts
            full = _join(prefix, name)
            if id(tensor) in first_names:
                targets.tied[full] = first_names[id(tensor)]
                continue
            first_names[id(tensor)] = full
            targets.tensors[full] = tensor.data
    return targets


def load_into(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    where: str,
    renames: Mapping[str, str] | None = None,
    optional: Iterable[str] = (),
    skips: tuple[str, ...] = (),
) -> frozenset[str]:
    """Copy `tensors` into `module`, cast to its dtype and device; returns the names that were filled.

    where: the directory, for errors. renames: leading parts of names that differ from the module's. optional:
    names inside the module that may be absent, because the caller fills or shares them. skips: leading parts of names
    that are left out on purpose, wrappers stripped. `CheckpointError` names every tensor that is missing, unused, of
    another shape or of a dtype that cannot be read.
    """
    targets = targets_of(module)
    filled: dict[str, str] = {}
    unused: list[str] = []
    copies: list[tuple[str, Tensor]] = []
    for name, tensor in tensors:
        if is_ignored(name) or bare_name(name).startswith(skips):
            continue
        target_name = module_name(name, renames or {})
        whole, names = targets.wholes.get(target_name, (None, (target_name,)))
        for part in names:
            if part in filled:
                raise CheckpointError(f"{where}: {filled[part]!r} and {name!r} both fill {part!r}.")
        if target_name in targets.tied:
            copies.append((name, tensor))
        elif whole is not None or target_name in targets.tensors:
            _copy(name, tensor, targets.tensors[target_name] if whole is None else whole, where=where)
        else:
            unused.append(name)
            continue
        filled |= dict.fromkeys(names, name)
    can_lack = frozenset(optional) | {
        name for name, to in targets.tensors.items() if isinstance(to, Slot) and to.is_optional
    }
    missing = [name for name in targets.tensors if name not in filled and name not in can_lack]
    if missing:
        raise CheckpointError(
            f"{where}: {_listed(missing, 'weight')} of the model not in the files."
            " config.json belongs to another model, or files are missing."
        )
    if unused:
        raise CheckpointError(
            f"{where}: {_listed(unused, 'tensor')} in the files not used by the model."
            " config.json belongs to another model, or the files hold parts that are not supported."
        )
    for name, tensor in copies:
        _check_copy(name, tensor, targets, renames or {}, where=where)
    return frozenset(filled)


def _copy(name: str, tensor: Tensor, target: Destination, *, where: str) -> None:
    if isinstance(target, Slot):
        _fill(name, tensor, target, where=where)
        return
    _check_shape(name, tensor, target, where=where)
    if target.dtype in _TABLES and not tensor.is_floating_point() and not tensor.is_complex():
        values = tensor.to(torch.int64)
        if not values.is_meta and not torch.equal(values.to(target.dtype).to(torch.int64), values):
            raise CheckpointError(
                f"{where}: {name!r} is stored as {tensor.dtype} and has values that {target.dtype} does not have."
                " Export it again."
            )
    elif tensor.dtype not in _FLOATS if target.dtype in _FLOATS else tensor.dtype != target.dtype:
        reason = _misfit(tensor, target)
        raise CheckpointError(
            f"{where}: {name!r} is stored as {tensor.dtype}, which cannot fill {target.dtype}: {reason}"
        )
    target.copy_(tensor)


def _fill(name: str, tensor: Tensor, slot: Slot, *, where: str) -> None:
    if tuple(tensor.shape) not in slot.shapes:
        wanted = " or ".join(str(list(shape)) for shape in slot.shapes)
        raise CheckpointError(
            f"{where}: {name!r} has shape {list(tensor.shape)} in the file, and config.json asks for {wanted}."
            " Use the config.json that came with the weights."
        )
    if tensor.dtype not in slot.dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in slot.dtypes)
        raise CheckpointError(
            f"{where}: {name!r} is stored as {tensor.dtype}, and its quantisation asks for {wanted}."
            " Use the config.json that came with the weights."
        )
    if tensor.is_meta:
        return
    try:
        slot.fill(tensor)
    except ValueError as error:
        raise CheckpointError(f"{where}: {name!r} {error}") from error


def _misfit(tensor: Tensor, target: Tensor) -> str:
    """The reason why the dtypes do not fit, and the remedy."""
    if target.dtype in _TABLES:
        return "it is a table of whole numbers. Export it again with integers."
    if target.dtype not in _FLOATS:
        return "config.json says how weights are quantised. Use the config.json that came with the weights."
    if tensor.dtype in (torch.int64, torch.bool, torch.float64) or tensor.is_complex():
        return "weights of this type are not read. Save it as float32, bfloat16 or float16."
    return "quantised weights are not supported. Use a float32, bfloat16 or float16 checkpoint."


def _check_shape(name: str, tensor: Tensor, target: Tensor, *, where: str) -> None:
    if tensor.shape != target.shape:
        raise CheckpointError(
            f"{where}: {name!r} has shape {list(tensor.shape)} in the file, and config.json asks for"
            f" {list(target.shape)}. Use the config.json that came with the weights."
        )


def _check_copy(name: str, tensor: Tensor, targets: Targets, renames: Mapping[str, str], *, where: str) -> None:
    """A stored copy of a tied tensor must be a copy."""
    first = targets.tied[module_name(name, renames)]
    target = targets.tensors[first]
    assert isinstance(target, Tensor), f"{first} is a table of embeddings"
    _check_shape(name, tensor, target, where=where)
    if not tensor.is_meta and not torch.equal(tensor.to(target), target):
        raise CheckpointError(
            f"{where}: config.json ties {name!r} to {first!r}, and the files hold two different tensors."
            " Set tie_word_embeddings to false in config.json if the model is untied."
        )


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _listed(names: list[str], noun: str) -> str:
    """The number of names, the noun, and the first of the names."""
    shown = ", ".join(names[:_LISTED]) + (f", and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return f"{len(names)} {noun}{'s are' if len(names) > 1 else ' is'} ({shown})"
