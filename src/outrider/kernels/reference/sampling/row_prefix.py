"""The first columns of each row."""

import torch
from torch import Tensor


def is_within(counts: Tensor, width: int) -> Tensor:
    """[num_rows, width] bool: True in the first `counts` columns of each row."""
    return torch.arange(width, device=counts.device) < counts.unsqueeze(1)
