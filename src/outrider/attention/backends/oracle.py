"""Attention in plain PyTorch: the backend of a CPU, and the reference for every other backend."""

from outrider.attention.base import AttentionBackend
from outrider.attention.caches.latent import Latent
from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.paged_kv import PagedKV
from outrider.kernels import load_kernels
from outrider.platforms.base import BasePlatform


class Backend(AttentionBackend):
    """The reference kernels."""

    name = "oracle"
    is_exact = True

    @classmethod
    def refuses(cls, spec: PagedSpec, platform: BasePlatform) -> str | None:
        stack = load_kernels(platform.kernel_stack).origins["paged_attention"]
        if stack != "reference":
            return f"the platform's attention kernels are those of the stack {stack!r}, not 'reference'"
        if isinstance(spec, Latent):
            return None if spec.window is None else "latent attention has no windows"
        if not isinstance(spec, PagedKV):
            return f"it attends over PagedKV and Latent, not over {type(spec).__name__}"
        if spec.value_dim != spec.head_dim:
            return f"value_dim={spec.value_dim} is not head_dim={spec.head_dim}"
        if spec.head_dim % 16:
            return f"head_dim={spec.head_dim} is not a multiple of 16"
        return None
