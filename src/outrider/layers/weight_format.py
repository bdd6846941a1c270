"""The interface of a weight format: storage of a matrix in memory and in checkpoints, and the products with it.

A format is a file of `layers/formats/`, found by its name. It may call any kernel, its own among them: a kernel stack
exports `linear_NAME` and `experts_NAME` for the format NAME if it has them.

Exactness: the result of a token may depend on that token alone. Scales of weights are constants. Scales of activations
must be made from one token, or from one group of one token (`scales_activations_by`); a scale of the whole batch would
make a token depend on its neighbours, so a format defined with such scales computes them per token, and documents that.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from outrider.core import plugins
from outrider.kernels import Kernels
from outrider.layers import formats as package


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weight:
    """A matrix [N, K], or one for each of E experts, in a format's memory layout."""

    format: "WeightFormat"
    data: Tensor  # [N, K] or [E, N, K] for `plain`; another format may pack several values into one element
    scales: Tensor | None = None
    zeros: Tensor | None = None
    whole_shape: tuple[int, int]
    """(N, K) of the whole layer; on a device that holds a shard, `data` has a part of it. Arithmetic follows this."""


class WeightFormat(ABC):
    """One way to store weights. A format holds no weights itself."""

    name: str
    """File name."""
    scales_activations_by: Literal["token", "group"] | None
    """The range of one activation scale: a token, or a group of a token's elements. None if nothing is scaled."""

    def refuses(self, kernels: Kernels) -> str | None:
        """The reason why these kernels cannot compute with this format, or None if they can."""
        return None

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
    def rows(self, weight: Weight, first: int, count: int) -> Mapping[str, Tensor]:
        """Views of output rows [first, first + count), of every expert, by the last part of their names in a
        checkpoint."""

    @abstractmethod
    def linear(
        self, kernels: Kernels, x: Tensor, weight: Weight, bias: Tensor | None, *, out_dtype: torch.dtype | None
    ) -> Tensor:
        """x [M, K], bias [N] -> [M, N] = x weightᵀ + bias, in x's dtype or in out_dtype."""

    @abstractmethod
    def experts(self, kernels: Kernels, x: Tensor, gate_up: Weight, down: Weight, routing: Any) -> Tensor:
        """x [M, K], gate_up [E, 2I, K] with gate rows first, down [E, K, I] -> [M, K]: `kernels.experts`."""


def find_format(name: str) -> WeightFormat:
    """The format called `name`. Raises ConfigError, with the names that exist, if there is none."""
    found: WeightFormat = plugins.find(package, name, what="weight format").Format()
    return found
