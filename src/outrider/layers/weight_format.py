"""The interface of a weight format: storage of a matrix in memory and in checkpoints, and the products with it.

A format is a file of `layers/formats/`, found by its name. It may call any kernel, its own among them: what a format
needs beside the kernels of every stack is in `kernels/interface/quantised.py`.

Exactness: the result of a token may depend on that token alone. Scales of weights are constants. Scales of activations
must be made from one token, or from one group of one token (`scales_activations_by`); a scale of the whole batch would
make a token depend on its neighbours, so a format defined with such scales computes them per token, and documents that.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from outrider.core import plugins
from outrider.core.quantization.scheme import Scheme
from outrider.kernels import Kernels
from outrider.kernels.interface.clamped import ClampedForm
from outrider.layers import formats as package
from outrider.loading.slot import Destination, Slot


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weight:
    """A matrix [N, K], or one for each of E experts, in a format's memory layout."""

    format: "WeightFormat"
    data: Tensor  # [N, K] or [E, N, K] for `plain`; another format may pack several values into one element
    scales: Tensor | None = None
    zeros: Tensor | None = None
    input_scale: Tensor | None = None  # [1] fp32, the static scale of activations
    order: Tensor | None = None  # [K] or [E, K] int32, group of each input column where groups are not contiguous
    whole_shape: tuple[int, int]
    """(N, K) of the whole layer; on a device that holds a shard, `data` has a part of it. Arithmetic follows this."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors in memory, by field."""
        fields = ("data", "scales", "zeros", "input_scale", "order")
        return {name: tensor for name in fields if (tensor := getattr(self, name)) is not None}

    def expert(self, index: int) -> "Weight":
        """The matrix of one expert, in the same memory. All experts share one static scale of activations."""
        own: dict[str, Any] = {
            name: tensor[index] for name, tensor in self.tensors().items() if name not in ("input_scale", "order")
        }
        return replace(self, **own)


class WeightFormat(ABC):
    """One way to store weights. A format holds no weights itself, but may have fields, such as the size of a group."""

    name: str
    """File name."""

    @property
    @abstractmethod
    def scales_activations_by(self) -> Literal["token", "group"] | None:
        """The range of one activation scale: a token, or a group of a token's elements. None if activations stay as
        they are, or have one scale from the checkpoint."""

    def refuses(self, kernels: Kernels) -> str | None:
        """The reason why these kernels cannot compute with this format, or None if they can."""
        return None

    def refuses_shape(self, output_size: int, input_size: int, *, is_expert: bool) -> str | None:
        """The reason why a matrix [output_size, input_size] cannot be stored so, or None if it can."""
        return None

    def can_join(self, rows: tuple[int, ...]) -> bool:
        """True if pieces of these numbers of rows can be stacked in one weight."""
        return True

    @classmethod
    def examples(cls) -> "tuple[WeightFormat, ...]":
        """The format with different values of its fields, for tests of all formats."""
        return (cls(),)

    @abstractmethod
    def empty(
        self,
        kernels: Kernels,
        output_size: int,
        input_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        num_experts: int | None = None,
    ) -> Weight:
        """An uninitialised weight. dtype: that of the activations. num_experts: E, for the experts of a mixture."""

    @abstractmethod
    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Destination]:
        """Output rows [first, first + count) of the matrix, as views, or as slots where files have another form, by the
        last part of their names in a checkpoint."""

    def encode(self, dense: Tensor) -> Mapping[str, Tensor]:
        """dense [N, K] -> the tensors of a checkpoint that stand for it, rounded to nearest, by the last part of their
        names."""
        return {"weight": dense}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """The reverse of `encode`: [N, K] fp32 from the tensors of a checkpoint. None if the format has no reverse."""
        return None

    @abstractmethod
    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        """x [M, K], bias [N] -> [M, N] = x weightᵀ + bias, in x's dtype or in out_dtype."""

    def refuses_clamped(self, kernels: Kernels) -> str | None:
        """The reason why these kernels cannot compute `clamped_experts` in this format, and the remedy; None if they
        can."""
        return f"the format {self.name!r} is not supported for them. Use a checkpoint in mxfp4 or in bfloat16"

    def clamped_experts(
        self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any, form: ClampedForm
    ) -> Tensor:
        """`experts` with biases and a clamped gate: `kernels.clamped_experts`."""
        raise AssertionError(f"{self.name} refuses such experts")

    @abstractmethod
    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        """x [M, K], gate_up [E, 2I, K] with gate rows first, down [E, K, I] -> [M, K]: `kernels.experts`."""


def store(weight: Weight, first: int, dense: Tensor) -> None:
    """Store dense [rows, K] as the output rows of `weight` from `first` on, as if a checkpoint held them."""
    form = weight.format
    views = form.rows(weight, first, dense.shape[0])
    for name, tensor in form.encode(dense).items():
        view = views[name]
        view.fill(tensor) if isinstance(view, Slot) else view.copy_(tensor)


def find_format(name: str) -> WeightFormat:
    """The format called `name`. Raises ConfigError, with the names that exist, if there is none."""
    found: WeightFormat = plugins.find(package, name, what="weight format").Format()
    return found


def format_of(scheme: Scheme | None) -> WeightFormat:
    """The format of a scheme, with its fields; `plain` for None."""
    if scheme is None:
        return find_format("plain")
    found: WeightFormat = plugins.find(package, scheme.format, what="weight format").Format(**dict(scheme.options))
    return found
