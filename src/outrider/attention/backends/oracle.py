"""Attention in plain PyTorch: what a CPU runs, and the oracle of every other backend."""

from typing import Any

from torch import Tensor

from outrider.attention.base import AttentionBackend
from outrider.attention.batch import ForwardBatch
from outrider.attention.kv import KVSpec, LayerKV
from outrider.platforms.base import BasePlatform


class Backend(AttentionBackend):
    """The platform's `paged_attention` kernel, called as it is."""

    name = "oracle"
    is_exact = True

    @classmethod
    def refuses(cls, spec: KVSpec, platform: BasePlatform) -> str | None:
        if spec.head_dim % 16:
            return f"head_dim={spec.head_dim} is not a multiple of 16"
        return None

    def begin(self, batch: ForwardBatch) -> Any:
        return self.kernels.plan_attention(
            batch.block_tables,
            batch.kv_lengths,
            row_counts=batch.row_counts,
            kv_length_bound=batch.kv_length_bound,
        )

    def attend(
        self,
        q: Tensor,
        cache: LayerKV,
        batch: ForwardBatch,
        metadata: Any,
        *,
        scale: float,
        kv_start: int = 0,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        return self.kernels.paged_attention(
            q, cache.k, cache.v, metadata, scale=scale, kv_start=kv_start, window=window, sinks=sinks
        )
