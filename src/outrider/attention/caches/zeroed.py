"""Zeroed memory for caches. On a CPU the operating system supplies a page when it is first written, so a cache that
requests do not fill takes no memory.
"""

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor


def zeroed(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros of `shape`. On a CPU they begin at a page's start; the last reference frees them."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or num_bytes == 0:
        return torch.zeros(*shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=dtype).view(*shape)  # torch.zeros writes every page
