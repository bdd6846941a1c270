"""Compiles the sampler in a thread while the worker starts: its kernels take as long as all others together.

The compiler runs outside of Python's lock, so a thread that launches the kernels once, on rows of its own, halves the
time of a first start. It takes no time if the kernels are already in the compiler's cache. Independent of requests.
"""

from contextlib import nullcontext
from threading import Thread

import torch

from outrider.kernels import Kernels
from outrider.platforms.base import BasePlatform

_ROWS = (1, 64)
"""Few rows and many rows use different kernels."""


def compile_sampler(kernels: Kernels, vocab_size: int, platform: BasePlatform) -> Thread:
    """Start compiling; join the thread before memory is measured or a graph is captured."""
    thread = Thread(target=_run, args=(kernels, vocab_size, platform), name="compile-sampler", daemon=True)
    thread.start()
    return thread


@torch.inference_mode()
def _run(kernels: Kernels, vocab_size: int, platform: BasePlatform) -> None:
    device = platform.device

    def column(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((1,), value, dtype=dtype, device=device)

    with platform.accelerator.side_stream() if platform.accelerator is not None else nullcontext():
        for num_rows in _ROWS:
            zeros = torch.zeros(num_rows, dtype=torch.int64, device=device)
            kernels.choose(
                torch.zeros(num_rows, vocab_size, device=device),
                rows=zeros,
                positions=zeros,
                temperature=column(1.0, torch.float32),
                top_k=column(0, torch.int64),
                top_p=column(0.9, torch.float32),
                min_p=column(0.0, torch.float32),
                seeds=column(0, torch.int64),
                completion_indices=column(0, torch.int64),
                random_index=zeros,
                truncation_index=zeros,
            )
