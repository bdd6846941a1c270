"""NVIDIA GPUs from compute capability 8.0 on: 16-bit weights and KV on the Triton and, with Hopper, Gluon kernels."""

import os

import torch
import triton

from outrider.core.errors import ConfigError
from outrider.platforms.base import Capability, GpuPlatform

_HOPPER = (9, 0)
"""The capability on which kernels and engine are tested."""

_LEAST = (8, 0)

KERNELS = "OUTRIDER_KERNELS"
"""Environment variable with an order of kernel stacks, such as "triton", to run others than the platform's."""


class Platform(GpuPlatform):
    """The current CUDA device. Bits depend on its kind and on the versions of torch, Triton and driver.

    Only Hopper GPUs were seen working. Others get the portable kernels, which an engine checks at its start.
    """

    name = "cuda"
    stack = "CUDA"
    kernel_stack: tuple[str, ...] = ("hopper", "triton")
    compiles_kernels = True
    attention_backends = ("triton",)
    excluded_backends = {"oracle": "plain PyTorch on a GPU is not row-invariant"}  # noqa: RUF012 - a constant
    is_exact = True
    has_graphs = True
    max_num_seqs = 256  # twice the tokens/s of 64 without drafts (benchmarks/results/decode.md); the largest graph
    num_prompt_tokens = 1024  # at most; each step takes as many as its measured time suggests
    token_multiple = 1024  # tiles of `linear` fill the GPU: 1152 tokens take 1.4 times as long (benchmarks/log.md)

    def __init__(self, capability: Capability | None = None) -> None:
        super().__init__(capability)
        is_hopper = self.capability.version == _HOPPER
        if not is_hopper:
            self.kernel_stack, self.is_exact, self.is_checked_at_start = ("triton",), False, True
        if order := os.environ.get(KERNELS):
            self.kernel_stack = tuple(name.strip() for name in order.split(","))
            self.is_exact = is_hopper and self.kernel_stack == Platform.kernel_stack  # no other order has been tested
            if not is_hopper and "hopper" in self.kernel_stack:
                raise ConfigError(
                    f"{KERNELS}={order!r}: the stack 'hopper' runs with compute capability 9.0 only, and {self.summary}"
                    f" has {_dotted(self.capability)}. Name 'triton', or unset {KERNELS}."
                )

    @classmethod
    def refuses(cls, capability: Capability) -> str | None:
        if capability.version < _LEAST:
            return (
                f"its compute capability is {_dotted(capability)}, which has no bfloat16, and the kernels have no form"
                " in float16 (fp16)"
            )
        return None

    def resolve_dtype(self, name: str) -> torch.dtype:
        if name in ("auto", "bfloat16"):
            return torch.bfloat16
        raise ConfigError(f"dtype={name!r} cannot be used: the GPU's kernels compute in bfloat16. Leave it at 'auto'.")

    def key(self, dtype: torch.dtype) -> dict[str, str]:
        return {
            "device": self.name,
            "kind": self.capability.name,
            "capability": _dotted(self.capability),
            "cuda": self.capability.runtime,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernel_stack": ", ".join(self.kernel_stack),
        }


def _dotted(capability: Capability) -> str:
    major, minor = capability.version
    return f"{major}.{minor}"
