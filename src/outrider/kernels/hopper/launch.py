"""What kernels must know of the device they are launched on."""

from functools import lru_cache

import torch
from torch import Tensor

_NUM_COUNTERS = 1 << 16

_ROW_TILES = (16, 32, 64, 256)
"""Tokens that a tile of `linear` may have, the larger of which divide the last."""


@lru_cache
def num_sms(device: torch.device) -> int:
    """Multiprocessors, each of which runs one CTA of a persistent kernel."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def empty_rows(num_rows: int, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[num_rows, *shape], unfilled, with memory behind it for as many rows as fill the last tile of `linear`.

    TMA reads what lies there faster than it makes zeros for rows outside of a matrix (benchmarks/log.md, entry 10).
    """
    tile = next((tile for tile in _ROW_TILES if num_rows <= tile), _ROW_TILES[-1])
    padded = -(-num_rows // tile) * tile
    return torch.empty(padded, *shape, dtype=dtype, device=device)[:num_rows]


def counters(device: torch.device, count: int) -> Tensor:
    """At least `count` int32 zeros, for kernels that leave them zero.

    There is one set for a device, so kernels that use them must not run at the same time on two streams. They are made
    on first use, which a capture cannot do.
    """
    assert count <= _NUM_COUNTERS, f"{count} counters of {_NUM_COUNTERS}"
    return _counters(device)


@lru_cache
def _counters(device: torch.device) -> Tensor:
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("run the step once before it is captured in a graph: a capture cannot make the counters")
    return torch.zeros(_NUM_COUNTERS, dtype=torch.int32, device=device)
