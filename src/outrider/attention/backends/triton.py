"""Paged attention on a GPU, with the same bits for prefill, decode and verify (`kernels/attention.py`)."""

import torch

from outrider.attention.base import AttentionBackend
from outrider.attention.caches.latent import Latent
from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.paged_kv import PagedKV
from outrider.kernels import load_kernels
from outrider.platforms.base import BasePlatform

_HEAD_DIMS = {"hopper": (64, 128, 256), "triton": tuple(range(16, 257, 8))}
"""Head dims that the attention kernels of a stack take."""


class Backend(AttentionBackend):
    """The Triton and Gluon kernels."""

    name = "triton"
    is_exact = True

    @classmethod
    def refuses(cls, spec: PagedSpec, platform: BasePlatform) -> str | None:
        stack = load_kernels(platform.kernel_stack).origins["paged_attention"]
        if stack not in _HEAD_DIMS:
            return f"the platform's attention kernels are those of the stack {stack!r}, not 'hopper' or 'triton'"
        if isinstance(spec, Latent):
            return "it has no kernels of latent attention. Run this model on a CPU: device='cpu'"
        if not isinstance(spec, PagedKV):
            return f"it attends over PagedKV, not over {type(spec).__name__}"
        if spec.value_dim != spec.head_dim:
            return f"value_dim={spec.value_dim} is not head_dim={spec.head_dim}"
        if spec.head_dim not in _HEAD_DIMS[stack]:
            return f"head_dim={spec.head_dim} is not one of {_HEAD_DIMS[stack]}"
        if spec.dtype not in (torch.bfloat16, torch.float16):
            return f"the KV cache is {spec.dtype}, not a 16-bit dtype"
        return None
