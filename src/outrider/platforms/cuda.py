"""NVIDIA GPUs of the Hopper generation: 16-bit weights and KV on the Triton and Gluon kernels."""

import torch
import triton

from outrider.core.errors import ConfigError, UnsupportedError
from outrider.platforms.base import BasePlatform


class Platform(BasePlatform):
    """The current CUDA device. Bits depend on its kind and on the versions of torch, Triton and driver."""

    name = "cuda"
    kernels = "triton"
    attention_backends = ("triton",)
    excluded_backends = {"oracle": "plain PyTorch on a GPU is not row-invariant"}  # noqa: RUF012 - a constant
    is_exact = True

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ConfigError("device='cuda': PyTorch finds no CUDA device. Use device='cpu'.")
        if torch.version.hip is not None:
            raise ConfigError("device='cuda': this PyTorch was built for ROCm. Use device='rocm'.")
        capability = torch.cuda.get_device_capability()
        if capability[0] != 9:
            raise UnsupportedError(
                f"device='cuda': {torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}"
                " and the kernels are written for 9.x (Hopper). Use device='cpu'."
            )
        self._index = torch.cuda.current_device()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self._index)

    def resolve_dtype(self, name: str) -> torch.dtype:
        if name in ("auto", "bfloat16"):
            return torch.bfloat16
        raise ConfigError(f"dtype={name!r} cannot be used: the GPU's kernels compute in bfloat16. Leave it at 'auto'.")

    def key(self, dtype: torch.dtype) -> dict[str, str]:
        properties = torch.cuda.get_device_properties(self._index)
        return {
            "device": self.name,
            "kind": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": str(torch.version.cuda),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": str(dtype).removeprefix("torch."),
            "kernels": self.kernels,
        }
