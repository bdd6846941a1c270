"""Gives each layer of a quantised checkpoint the format of its modules, before weights have memory.

Formats that cannot be used are refused here, each with the module's name in the checkpoint.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from torch import nn

from outrider.core.errors import UnsupportedError
from outrider.core.quantization.scheme import Quantization, Scheme
from outrider.kernels import Kernels
from outrider.layers.linear import Linear
from outrider.layers.moe import Experts
from outrider.layers.weight_format import WeightFormat, find_format, format_of

_REMEDY = "Use a checkpoint in bfloat16, or in another format."


def assign_formats(
    module: nn.Module,
    quantization: Quantization | None,
    kernels: Kernels,
    *,
    where: str,
    name_of: Callable[[str], str] = lambda name: name,
) -> None:
    """Allocate the weights of all layers inside `module` that wait for their formats.

    where: the directory, for errors. name_of: name of a module here -> its name in the checkpoint. Raises
    UnsupportedError if a format cannot be used.
    """
    plain = find_format("plain")
    is_chosen_here = quantization is not None and quantization.is_chosen_here
    formats: dict[Scheme | None, WeightFormat] = {None: plain}

    def find(
        name: str,
        *,
        output_size: int,
        input_size: int,
        refuses: Callable[[WeightFormat], str | None] = lambda form: None,
        is_expert: bool = False,
    ) -> WeightFormat:
        scheme = quantization.scheme_of(name_of(name)) if quantization is not None else None
        if scheme is not None and scheme not in formats:
            formats[scheme] = format_of(scheme)
            if (reason := formats[scheme].refuses(kernels)) is not None:
                raise UnsupportedError(
                    f"{where}: {name_of(name)} is stored in the format {scheme.format!r}: {reason}. {_REMEDY}"
                )
        found = formats[scheme]
        reason = refuses(found) or found.refuses_shape(output_size, input_size, is_expert=is_expert)
        if reason is not None:
            raise UnsupportedError(
                f"{where}: {name_of(name)} is stored in the format {found.name!r}: {reason}. {_REMEDY}"
            )
        return found

    for prefix, child in module.named_modules():
        if isinstance(child, Linear) and not child.is_always_plain:
            names = child.modules_in_checkpoint(prefix)
            sizes = [rows for _, rows in child.pieces] or [child.output_size]
            child.allocate(
                [
                    plain
                    if is_chosen_here and name.rpartition(".")[2] in child.sensitive
                    else find(name, output_size=rows, input_size=child.input_size, refuses=child.refuses)
                    for name, rows in zip(names, sizes, strict=True)
                ]
            )
        elif isinstance(child, Experts):
            found = {}
            for name in child.modules_in_checkpoint(prefix):
                is_down = name.endswith("down_proj")
                output_size, input_size = (
                    (child.hidden_size, child.width) if is_down else (child.width, child.hidden_size)
                )
                found[name] = find(name, output_size=output_size, input_size=input_size, is_expert=True)
            if len(set(found.values())) > 1:
                raise UnsupportedError(f"{where}: {_two_of(found)}: experts of a layer share a format. {_REMEDY}")
            child.allocate(next(iter(found.values())))


def count_formats(module: nn.Module) -> Counter[str]:
    """Number of matrices, fused ones and those of all experts of a layer counted once, by the name of their format."""
    counts: Counter[str] = Counter()
    for child in module.modules():
        if isinstance(child, Linear):
            counts.update(segment.weight.format.name for segment in child.segments)
        elif isinstance(child, Experts):
            counts.update(weight.format.name for weight in (child.gate_up, child.down))
    return counts


def _two_of(found: Mapping[str, WeightFormat]) -> str:
    first = next(iter(found))
    other = next(name for name in found if found[name] != found[first])
    return f"{first} and {other} have different formats"
