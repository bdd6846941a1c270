"""Reductions of a model that pools. A stack may lack them: a platform whose order of stacks has none does not pool.

Legend: N table rows, R rows of a step, T tokens of a step, M vectors, H width of a hidden state, W numbers in a vector.

Exactness. Every result depends on one text alone. A sum over the tokens of a text is a chain in fp32 in ascending order
of positions, which a later chunk continues: the same additions however the text was cut. A sum over the numbers of a
vector is the tree of `row_sum` over W places.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class PoolingKernels(Protocol):
    """Kernels between the last layer of a model that pools and its results."""

    def add_tokens(
        self, sums: Tensor, x: Tensor, *, rows: Tensor, starts: Sequence[int], counts: Sequence[int]
    ) -> None:
        """Add tokens to the sums [N, H] fp32 of their rows, one after the other.

        x [T, H]; row i of the step is the table's row rows[i] ([R] int64) and has counts[i] tokens from starts[i] on.
        """

    def normalize_vectors(self, vectors: Tensor, *, sizes: Tensor, is_wanted: Tensor) -> Tensor:
        """vectors [M, W] fp32 -> [M, W] fp32: the first sizes[i] numbers of vector i divided by their length (at least
        1e-12), the others 0. Where is_wanted[i] is 0 they stay as they are. sizes, is_wanted: [M] int64."""

    def activate_labels(self, logits: Tensor, *, activation: str, is_wanted: Tensor) -> Tensor:
        """logits [M, W] fp32 -> [M, W] fp32: the activation ("identity", "sigmoid" or "softmax") of each row whose
        is_wanted ([M] int64) is not 0; other rows stay as they are."""
