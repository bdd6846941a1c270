"""Memory of the C library: large buffers that the front frees go back to the system at once."""

import ctypes
import sys

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Parameters of glibc's mallopt."""
_LARGE_BYTES = 128 << 10
_NUM_ARENAS = 2


def return_large_buffers() -> bool:
    """Sets a fixed size from which memory is mapped alone. False where the C library has no such setting.

    By default glibc raises that size to the largest buffer that was freed. Bodies of a few megabytes then come
    from heaps, one for each thread, which cannot shrink while anything small lies behind what was freed.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_ARENA_MAX, _NUM_ARENAS))
