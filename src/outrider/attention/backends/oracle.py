"""Attention in plain PyTorch: what a CPU runs, and the oracle of every other backend."""

from outrider.attention.base import AttentionBackend
from outrider.attention.kv import KVSpec
from outrider.kernels import load_kernels
from outrider.platforms.base import BasePlatform


class Backend(AttentionBackend):
    """The reference kernels."""

    name = "oracle"
    is_exact = True

    @classmethod
    def refuses(cls, spec: KVSpec, platform: BasePlatform) -> str | None:
        stack = load_kernels(platform.kernel_stack).origins["paged_attention"]
        if stack != "reference":
            return f"the platform's attention kernels are those of the stack {stack!r}, not 'reference'"
        if spec.head_dim % 16:
            return f"head_dim={spec.head_dim} is not a multiple of 16"
        return None
