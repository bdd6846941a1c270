"""NVIDIA GPUs of the Hopper generation: 16-bit weights and KV on the Triton and Gluon kernels."""

import os

import torch
import triton

from outrider.core.errors import ConfigError
from outrider.platforms.base import Capability, GpuPlatform

KERNELS = "OUTRIDER_KERNELS"
"""Environment variable with an order of kernel stacks, such as "triton", to run others than the platform's."""


class Platform(GpuPlatform):
    """The current CUDA device. Bits depend on its kind and on the versions of torch, Triton and driver."""

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
        if order := os.environ.get(KERNELS):
            self.kernel_stack = tuple(name.strip() for name in order.split(","))
            self.is_exact = self.kernel_stack == Platform.kernel_stack  # no other order has been tested for it

    @classmethod
    def refuses(cls, capability: Capability) -> str | None:
        if capability.version[0] != 9:
            return (
                f"its compute capability is {capability.version[0]}.{capability.version[1]} and the kernels are written"
                " for 9.x (Hopper)"
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
            "capability": f"{self.capability.version[0]}.{self.capability.version[1]}",
            "cuda": self.capability.runtime,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernel_stack": ", ".join(self.kernel_stack),
        }
