"""Compiles kernels in threads while the worker starts: those of the sampler, and every form of `linear`.

They take longer than all others together. The compiler runs outside of Python's lock for the most part, so threads
shorten a first start. It takes no time if the kernels are already in the compiler's cache. Independent of requests.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from outrider.kernels import Kernels
from outrider.platforms.base import BasePlatform

_ROWS = (64, 1)
"""Few rows and many rows use different kernels of the sampler."""

_NUM_THREADS = 8


class Compiling:
    """Kernels that are being compiled."""

    def __init__(self, calls: list[Callable[[], object]]) -> None:
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="compile")
        self._calls: list[Future[object]] = [self._threads.submit(call) for call in calls]

    def join(self) -> None:
        """Block until all are compiled; raises what the compiler raised."""
        for call in self._calls:
            call.result()
        self._threads.shutdown()


def compile_kernels(kernels: Kernels, *, vocab_size: int, dtype: torch.dtype, platform: BasePlatform) -> Compiling:
    """Start compiling; join before memory is measured or a graph is captured. `dtype`: of activations."""

    def sample(num_rows: int) -> Callable[[], object]:
        return lambda: _sample(kernels, num_rows, vocab_size, platform)

    return Compiling([*map(sample, _ROWS), *kernels.linear_compilations(dtype, platform.device)])


@torch.inference_mode()
def _sample(kernels: Kernels, num_rows: int, vocab_size: int, platform: BasePlatform) -> None:
    """Launch the sampler once, on rows of its own."""
    device = platform.device

    def column(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((1,), value, dtype=dtype, device=device)

    with platform.accelerator.side_stream() if platform.accelerator is not None else nullcontext():
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
