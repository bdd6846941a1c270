"""Paged attention on a GPU, with the same bits for prefill, decode and verify (`kernels/attention.py`)."""

import torch

from outrider.attention.base import AttentionBackend
from outrider.attention.kv import KVSpec
from outrider.platforms.base import BasePlatform

_HEAD_DIMS = (64, 128, 256)


class Backend(AttentionBackend):
    """The Triton and Gluon kernels."""

    name = "triton"
    is_exact = True

    @classmethod
    def refuses(cls, spec: KVSpec, platform: BasePlatform) -> str | None:
        if platform.kernels != "hopper":
            return f"the platform's kernels are {platform.kernels!r}, not 'hopper'"
        if spec.head_dim not in _HEAD_DIMS:
            return f"head_dim={spec.head_dim} is not one of {_HEAD_DIMS}"
        if spec.dtype not in (torch.bfloat16, torch.float16):
            return f"the KV cache is {spec.dtype}, not a 16-bit dtype"
        return None
