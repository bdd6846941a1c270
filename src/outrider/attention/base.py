"""The interface of an attention backend: `begin` once per step to plan for the batch, `attend` once per layer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.latent import LayerLatent
from outrider.attention.caches.paged import PagedSpec
from outrider.attention.caches.paged_kv import LayerKV
from outrider.kernels import Kernels
from outrider.platforms.base import BasePlatform


class AttentionBackend(ABC):
    """One way to compute attention. It holds no state of a step: `begin` returns that as metadata.

    The methods here call the platform's own kernels; a backend with kernels of its own overrides them.
    """

    name: str
    """File name, and the value of the option `attention_backend`."""
    is_exact: bool
    """True if a token's result has the same bits in every batch and for every chunking."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    @classmethod
    @abstractmethod
    def refuses(cls, spec: PagedSpec, platform: BasePlatform) -> str | None:
        """The reason why it cannot attend over a cache of this shape on this platform, or None if it can."""

    def begin(self, batch: ForwardBatch) -> Any:
        """Metadata of one step, shared by all layers: a plan for each group. Does not wait for the device."""
        return {
            index: self.kernels.plan_attention(
                group.block_tables,
                batch.kv_lengths,
                row_counts=batch.row_counts,
                kv_length_bound=batch.kv_length_bound,
            )
            for index, group in batch.groups.items()
        }

    def attend(
        self,
        q: Tensor,
        cache: LayerKV,
        batch: ForwardBatch,
        metadata: Any,
        *,
        scale: float,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """q [num_tokens, num_heads, head_dim] -> [num_tokens, num_heads, value_dim]. Call it after K and V are written.

        Token t sees KV indices [max(batch.kv_start, kv_length - window), kv_length) of its row. sinks: [num_heads].
        """
        plan = metadata[cache.group]
        return self.kernels.paged_attention(
            q, cache.k, cache.v, plan, scale=scale, kv_start=batch.kv_start, window=window, sinks=sinks
        )

    def attend_latent(
        self, q: Tensor, cache: LayerLatent, batch: ForwardBatch, metadata: Any, *, rank: int, scale: float
    ) -> Tensor:
        """q [num_tokens, num_heads, rank + rope_size] -> [num_tokens, num_heads, rank], the mean of the latent parts.

        Call it after the rows of the batch are written. Token t sees KV indices [batch.kv_start, kv_length) of its row.
        """
        plan = metadata[cache.group]
        return self.kernels.latent_attention(q, cache.rows, plan, rank=rank, scale=scale, kv_start=batch.kv_start)


@dataclass(frozen=True, slots=True)
class StepAttention:
    """Attention of one forward pass: the backend, the batch and its metadata."""

    backend: AttentionBackend
    batch: ForwardBatch
    metadata: Any

    def attend(
        self, q: Tensor, cache: LayerKV, *, scale: float, window: int | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        """`AttentionBackend.attend` for this pass."""
        return self.backend.attend(q, cache, self.batch, self.metadata, scale=scale, window=window, sinks=sinks)

    def attend_latent(self, q: Tensor, cache: LayerLatent, *, rank: int, scale: float) -> Tensor:
        """`AttentionBackend.attend_latent` for this pass."""
        return self.backend.attend_latent(q, cache, self.batch, self.metadata, rank=rank, scale=scale)
