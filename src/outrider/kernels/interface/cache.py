"""Kernels of the paged KV cache: writing keys and values, and attention over them.

Legend: M tokens, Hq query heads, Hk key/value heads, D head dim, P positions of the rotary table.
"""

from typing import NamedTuple, Protocol

from torch import Tensor


class DeviceCounts(NamedTuple):
    """Tokens of each row where only the device knows them: a captured step serves every plan that fits its sizes."""

    counts: Tensor  # [R] int64, padding included
    starts: Tensor  # [R] int64, first token of each row in the flat batch
    decode_width: int  # tokens of a decode row at most; work is divided best if such rows come first


class AttentionPlan(Protocol):
    """Rows and lengths of a step, made once and shared by all layers. A stack keeps its own lists of work in it."""

    block_tables: Tensor  # [num_rows, max_blocks] int32
    kv_lengths: Tensor  # [M] int64, 0 for padding
    row_counts: tuple[int, ...] | DeviceCounts  # tokens of each row, padding included


class CacheKernels(Protocol):
    """Kernels that read and write caches [num_blocks, block_size, Hk, D] of keys and of values."""

    def write_kv(self, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
        """k, v [M, Hk, D] into the caches at slots [M] int64 (block × block_size + offset)."""

    def rotary_and_write_kv(
        self,
        heads: Tensor,
        positions: Tensor,
        cos_sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
        *,
        norms: tuple[Tensor, Tensor] | None = None,
        eps: float = 0.0,
        plus_one: bool = False,
        has_gates: bool = False,
    ) -> Tensor:
        """heads [M, Hq + 2 Hk, D], q then k then v -> rotated q [M, Hq, D]; rotated k, and v, go to the caches.

        norms      weights [D] of an RMSNorm of each head of q and of k, before the rotation; `eps` and `plus_one` as
                   in `rms_norm`
        has_gates  a gate follows each head of q and is left alone: heads [M, 2 Hq + 2 Hk, D]
        """

    def plan_attention(
        self,
        block_tables: Tensor,
        kv_lengths: Tensor,
        *,
        row_counts: tuple[int, ...] | DeviceCounts,
        kv_length_bound: int,
    ) -> AttentionPlan:
        """The plan of a step for `paged_attention` of the same stack.

        block_tables [num_rows, max_blocks] int32, kv_lengths [M] int64, 0 for padding. kv_length_bound: the host's
        bound on them.
        """

    def paged_attention(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        plan: AttentionPlan,
        *,
        scale: float,
        kv_start: int = 0,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """q [M, Hq, D] -> [M, Hq, D]; token t sees KV [max(kv_start, length - window), length) of its row.

        A token that sees nothing gives zeros. sinks [Hq]: one more logit of each head, unscaled, whose weight is left
        out of the output. Slots that no token of a row sees may hold anything, NaN included.
        """
