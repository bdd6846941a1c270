"""The interface of an operation on logits, and finding all operations by listing the folder.

An operation reads some sampling parameters and changes the logits, or the choice, of the samples whose request uses
them. Its file states three things: which columns it has in the sampling table, which requests need it, and which values
it writes when a request starts. A fused kernel does the arithmetic (`process` for everything before temperature,
`choose` from temperature on), or the operation itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from outrider.core import plugins
from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling import operations

Value = float | Sequence[float] | Sequence[Sequence[int]] | np.ndarray
"""A number fills a row's whole entry; a sequence fills its first places, and the others become neutral.

Lists that are not neutral make the copy of an admission longer: a request that does not use them should have none.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One tensor of the sampling table, with an entry for each row."""

    name: str
    dtype: torch.dtype
    """int32, int64, float32 or float64."""
    neutral: float
    """Value in rows that were never written: the operation then changes nothing."""
    shape: tuple[int, ...] = ()
    """Shape of one row's entry; (): a number."""


class BaseOperation(ABC):
    """One operation. Its file's name is its name: in `SampleBatch.lists`, and before `_index` in the kernel's call."""

    kernel: Literal["process", "choose"] | None = None
    """The kernel that applies it, whose arguments include the columns by their names; None: `apply` does."""

    def __init__(self, vocab_size: int) -> None:
        """`vocab_size`: the target's."""
        self.vocab_size = vocab_size

    @property
    def columns(self) -> Sequence[Column]:
        """Its columns in the sampling table; names are unique over all operations."""
        return ()

    @abstractmethod
    def is_needed(self, params: SamplingParams) -> bool:
        """True if the operation can change samples of a request with these parameters."""

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        """Values of a request's row by the name of the column, written when it starts or resumes; a column that is
        missing gets its neutral value."""
        return {}

    def apply(self, logits: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """The changed logits of the samples that need it: [num_listed, vocab_size] fp32, a new tensor.

        For an operation without a kernel. It runs after `process` and grammars, and before temperature.
        logits may hold NaN and infinities. columns: its own, an entry for each of these samples. A sample with neutral
        values must keep its bits. A row must not depend on the other rows: maxima, integer sums and element-wise
        functions are safe, a floating-point sum over a row is not. Nothing may wait for the device.
        """
        raise NotImplementedError(f"{type(self).__module__} names no kernel and has no apply()")


def find_operations(vocab_size: int) -> dict[str, BaseOperation]:
    """Every operation by its name, in the order of names. `vocab_size`: the target's."""
    modules = {name: plugins.find(operations, name, what="operation") for name in plugins.names(operations)}
    return {name: module.Operation(vocab_size) for name, module in modules.items()}
