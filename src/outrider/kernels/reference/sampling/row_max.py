"""Logits relative to the largest of their row."""

import torch
from torch import Tensor


def below_max(logits: Tensor) -> Tensor:
    """logits - max of the row, for logits below +inf; a row of -inf only stays as it is.

    The sign of a zero, which a maximum leaves open, is lost in adding 0.0.
    """
    largest = logits.amax(dim=1, keepdim=True)
    return logits - torch.where(largest == -torch.inf, 0.0, largest) + 0.0
