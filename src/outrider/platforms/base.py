"""The interface of a kind of device: its dtype, its kernels and the conditions under which results repeat.

Independent of models and memory sizing. A platform is a file of this folder that exports `Platform`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

import outrider.platforms as package
from outrider.core import plugins
from outrider.core.errors import ConfigError, UnsupportedError
from outrider.platforms.accelerator import Accelerator, TorchCuda


class BasePlatform(ABC):
    """One kind of device. Two runs whose `key()` is equal give equal bits.

    Created without arguments, it describes the device of this machine. Raises `ConfigError` if there is none, and
    `UnsupportedError` if the device is not supported.
    """

    name: str
    """File name, and the value of the option `device`."""
    kernel_stack: tuple[str, ...]
    """Kernel stacks in order: each kernel comes from the first that has it."""
    compiles_kernels: bool
    """True if a kernel is compiled when it is first called; the worker then compiles some while it loads."""
    attention_backends: tuple[str, ...]
    """Names in order of preference."""
    excluded_backends: dict[str, str]
    """Backends that cannot run here, with the reason."""
    is_exact: bool
    """True if every kernel on the target's path is row-invariant."""
    is_checked_at_start = False
    """True if the kernels have not been tested on this device: an engine checks them at its start, and is exact if they
    pass."""
    has_graphs: bool
    """True if a step can be captured and replayed."""
    can_pool = False
    """True if models that pool were found row-invariant here. A kernel stack may lack their reductions."""
    max_num_seqs = 64
    """Default maximum number of requests that run at once."""
    num_prompt_tokens = 448
    """Default maximum number of prompt tokens per step, beside the tokens of max_num_seqs decoding requests."""
    token_multiple = 1
    """The default number of tokens per step is a multiple of this."""
    preference: int
    """device="auto" tries platforms in descending order of this number."""
    reason = "asked for by name"
    """Reason why this platform was chosen, for a person to read."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device on which tensors are created."""

    @property
    @abstractmethod
    def accelerator(self) -> Accelerator | None:
        """Pinned memory, events and graphs of a device with its own memory; None for a CPU."""

    @property
    @abstractmethod
    def total_memory(self) -> int:
        """Bytes of memory of the device, or of the host for a CPU."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The device and its capability, which the choice of kernels depends on, for a person to read."""

    @abstractmethod
    def resolve_dtype(self, name: str) -> torch.dtype:
        """Compute and KV dtype for the option `dtype`; raises `ConfigError` if the device cannot use it."""

    @abstractmethod
    def key(self, dtype: torch.dtype) -> dict[str, str]:
        """Everything that the bits of a result depend on besides the model and the attention backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """Properties of a GPU. Passed to a platform, they replace the query, to describe a GPU that this machine lacks."""

    name: str
    """"NVIDIA H200", "AMD Instinct MI300X"."""
    version: tuple[int, int]
    """Compute capability: (9, 0)."""
    arch: str
    """"sm_90", "gfx942"."""
    runtime: str
    """Version of CUDA or HIP for which PyTorch was built."""
    index: int = 0
    """Index of the device among those that PyTorch sees."""


NOT_BUILT = {
    "xpu": "Intel's GPUs need an accelerator of torch.xpu (streams, events, pinned memory and graphs) and the Triton"
    " kernels compiled and tested for them",
    "mps": "Apple's GPUs need kernels in Metal, and an accelerator of torch.mps: Triton does not compile for them",
}
"""Devices that PyTorch knows and this package does not, with what is missing."""


class GpuPlatform(BasePlatform):
    """The common part of NVIDIA's and AMD's GPUs: PyTorch drives both through `torch.cuda`."""

    stack: str
    """"CUDA" or "ROCm": what PyTorch must have been built for."""
    preference = 1

    def __init__(self, capability: Capability | None = None) -> None:
        self.capability = capability or self._query()
        refusal = self.refuses(self.capability)
        if refusal is not None:
            raise UnsupportedError(f"device={self.name!r}: {self.summary} cannot be used: {refusal}. Use device='cpu'.")

    @classmethod
    @abstractmethod
    def refuses(cls, capability: Capability) -> str | None:
        """The reason why this GPU cannot be used, or None if it can."""

    def _query(self) -> Capability:
        built_for = "ROCm" if torch.version.hip is not None else "CUDA" if torch.version.cuda is not None else "CPUs"
        if built_for != self.stack:
            raise ConfigError(
                f"device={self.name!r}: this PyTorch ({torch.__version__}) was built for {built_for}, not for"
                f" {self.stack}. Install a build for {self.stack}, or use device='cpu'."
            )
        if not torch.cuda.is_available():
            raise ConfigError(f"device={self.name!r}: PyTorch finds no {self.stack} device. Use device='cpu'.")
        index = torch.cuda.current_device()
        properties = torch.cuda.get_device_properties(index)
        version = (properties.major, properties.minor)
        return Capability(
            name=properties.name,
            version=version,
            arch=getattr(properties, "gcnArchName", "").partition(":")[0] or f"sm_{version[0]}{version[1]}",
            runtime=str(torch.version.hip or torch.version.cuda),
            index=index,
        )

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.capability.index)

    @property
    def accelerator(self) -> Accelerator:
        return TorchCuda(self.device)

    @property
    def total_memory(self) -> int:
        return self.accelerator.total_memory

    @property
    def summary(self) -> str:
        return f"{self.capability.name} ({self.capability.arch})"


def select_platform(name: str) -> BasePlatform:
    """The platform called `name`; "auto" takes the GPU of this machine if it is exact, else the CPU.

    A GPU that is not supported is an error: "auto" does not fall back to the CPU then.
    """
    if name != "auto":
        if name in NOT_BUILT:
            raise UnsupportedError(f"device={name!r} is not supported: {NOT_BUILT[name]}. Use device='cpu'.")
        if name not in platform_names():
            raise ConfigError(f"device={name!r} is not known. Known: auto, {', '.join(platform_names())}.")
        return platform_class(name)()
    absent: list[str] = []
    for candidate in sorted(platform_names(), key=lambda known: -platform_class(known).preference):
        try:
            platform = platform_class(candidate)()
        except UnsupportedError:
            raise
        except ConfigError as error:
            absent.append(str(error).partition(". ")[0].removesuffix("."))  # the remedy is for who asked for it
            continue
        if not platform.is_exact:
            why = "is not exact"
            if platform.is_checked_at_start:
                why = "was not tested, and an engine on it checks its kernels"
            absent.append(f"device={candidate!r}: {platform.summary} {why}; ask for it by name")
            continue
        platform.reason = "; ".join(["first available", *absent])
        return platform
    raise ConfigError("no device can run: " + "; ".join(absent))


def platform_class(name: str) -> type[BasePlatform]:
    """The class in the file called `name`."""
    found: type[BasePlatform] = plugins.find(package, name, what="device").Platform
    return found


def platform_names() -> list[str]:
    """Names of all platforms, sorted."""
    return [name for name in plugins.names(package) if name not in ("accelerator", "base", "torch_settings")]
