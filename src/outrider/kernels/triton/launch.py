"""Launching kernels: the option to overlap them, multiprocessors, counters, and memory with padding."""

from functools import lru_cache

import torch
import triton
from torch import Tensor


def _can_overlap() -> bool:
    """True if the GPU has programmatic dependent launch: NVIDIA's from compute capability 9.0 on."""
    return torch.version.hip is None and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)


OVERLAPPED = {"launch_pdl": True} if _can_overlap() else {}
"""Option of a kernel that may start while the one before it still runs (programmatic dependent launch). It must call
`wait` of `intrinsics.py` before it reads what an earlier kernel writes."""

INSTRUCTION = {"matrix_instr_nonkdim": 16} if torch.version.hip else {}
"""Option of a kernel with products whose tiles vary: on AMD's GPUs Triton would choose another instruction for large
tiles, and another order of summation with it."""


def registers(most: int) -> dict[str, int]:
    """Option of a kernel whose threads may have `most` registers; AMD's compiler has no such option."""
    return {} if INSTRUCTION else {"maxnreg": most}


_NUM_COUNTERS = 1 << 16

_ROW_TILES = (16, 32, 64, 256)
"""Tokens of a tile of `linear`, each dividing the next."""


@lru_cache
def num_sms(device: torch.device) -> int:
    """Number of multiprocessors; each runs one CTA of a persistent kernel. A few on a CPU, for the interpreter."""
    if device.type == "cpu":
        return 3
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache
def shared_bytes(device: torch.device) -> int:
    """Shared memory that one program may have. A little on a CPU, for the interpreter."""
    if device.type == "cpu":
        return 99 << 10
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return int(properties["max_shared_mem"])


def empty_rows(num_rows: int, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[num_rows, *shape], uninitialized, followed by enough memory to fill the last tile of `linear`.

    TMA reads that memory faster than it generates zeros for rows outside of a matrix (benchmarks/log.md, entry 10).
    """
    tile = next((tile for tile in _ROW_TILES if num_rows <= tile), _ROW_TILES[-1])
    padded = -(-num_rows // tile) * tile
    return torch.empty(padded, *shape, dtype=dtype, device=device)[:num_rows]


def counters(device: torch.device, count: int) -> Tensor:
    """At least `count` int32 zeros, for kernels that set them back to zero.

    A device has one set, so two kernels that use them must not run at the same time on two streams. They are allocated
    on first use, which a capture cannot do.
    """
    assert count <= _NUM_COUNTERS, f"{count} counters are asked for, and there are {_NUM_COUNTERS}"
    return _counters(device)


@lru_cache
def _counters(device: torch.device) -> Tensor:
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("counters cannot be allocated during a capture; run the step once before it is captured")
    return torch.zeros(_NUM_COUNTERS, dtype=torch.int32, device=device)
