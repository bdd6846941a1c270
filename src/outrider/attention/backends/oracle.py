"""Attention in plain PyTorch: what a CPU runs, and the oracle of every other backend."""

from outrider.attention.base import AttentionBackend
from outrider.attention.kv import KVSpec
from outrider.platforms.base import BasePlatform


class Backend(AttentionBackend):
    """The reference kernels."""

    name = "oracle"
    is_exact = True

    @classmethod
    def refuses(cls, spec: KVSpec, platform: BasePlatform) -> str | None:
        if platform.kernels != "reference":
            return f"the platform's kernels are {platform.kernels!r}, not 'reference'"
        if spec.head_dim % 16:
            return f"head_dim={spec.head_dim} is not a multiple of 16"
        return None
