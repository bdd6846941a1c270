"""Turns the errors of an allocator, for weights of sizes that a config.json made up, into one that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from outrider.core.errors import CheckpointError

_SIGNS = ("not enough memory", "can't allocate memory", "overflow", "out of memory", "invalid sizes")


@contextmanager
def sizes_that_fit(where: str) -> Iterator[None]:
    """Raises CheckpointError, which names `where`, if weights that are built inside are too large for memory."""
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        is_size = isinstance(error, (torch.OutOfMemoryError, MemoryError, OverflowError))
        if not is_size and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        raise CheckpointError(
            f"{where}: weights or tables of the sizes that config.json asks for do not fit into memory"
            f" ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__}). Use the config.json that"
            " came with the weights, a smaller max_model_len, or a device with more memory."
        ) from error
