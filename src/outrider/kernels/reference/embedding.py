"""Rows of the embedding table."""

from torch import Tensor


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """ids [M] int64 in [0, V), weight [V, K] -> [M, K]."""
    return weight.index_select(0, ids)
