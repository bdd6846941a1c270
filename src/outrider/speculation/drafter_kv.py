"""The rows of a drafter's pass over its own paged KV, which is stored in the engine's blocks.

The drafter shares the engine's block tables: K and V of the token at position p of a request are at KV index p, whose
drafter position is p - `first_index`. Indices below `first_index` stay empty and are masked. With each block one
feature may be kept, that of the block's last token (`boundary`): a drafter that joins a token with the feature of the
token before it needs it after a prefix-cache hit. The drafter decides which features go into a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch, GroupBatch
from outrider.attention.caches.model_caches import ModelCaches
from outrider.attention.caches.zeroed import zeroed
from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.interface.sampling import Verified
from outrider.speculation.drafter import DrafterContext


class FirstRows(NamedTuple):
    """A pass over the first token that each of some requests computes."""

    features: Tensor  # [number of requests, feature_size], zero if a request has no cached block
    batch: ForwardBatch  # one token per request
    rows: Tensor  # [number of requests] int64, table rows
    blocks: Tensor  # [number of requests] int64, last cached block of the first group; 0: none


class DrafterKV:
    """Rows of a drafter's passes, and the feature at the end of each block. K and V are in the drafter's `caches`."""

    def __init__(self, *, first_index: int, feature_size: int, context: DrafterContext) -> None:
        """Nothing is allocated yet.

        first_index: first KV index of a request that is written. feature_size: width of the feature kept with each
        block; 0: none is kept.
        """
        self.first_index = first_index
        self._feature_size = feature_size
        self._kernels = context.layers.kernels
        self._dtype = context.layers.dtype
        self._device = context.device

    @property
    def boundary_bytes(self) -> int:
        """Bytes of the feature kept with one block."""
        return self._feature_size * self._dtype.itemsize

    def allocate_boundary(self, num_blocks: int) -> None:
        """Allocate the kept features of `num_blocks` blocks, in place of what was there before."""
        self.boundary = zeroed((num_blocks, self._feature_size), dtype=self._dtype, device=self._device)

    def attach(self, table: RequestTable, staging: Staging, caches: ModelCaches) -> None:
        """Take the engine's table and staging buffer, and the drafter's caches; called once, before any step."""
        self._table = table
        self._staging = staging
        self._groups = caches.group_indices

    def keep_boundary(self, target: ForwardBatch, features: Tensor) -> None:
        """Keep the feature of every token of the step that ends a block of the first group.

        features [T, feature_size]: of the target's tokens. Those of other tokens go to the null block's place.
        """
        slots, block_size = target.groups[0].slots, self._table.groups[0].block_size
        ends_block = (slots + 1) % block_size == 0
        self.boundary[torch.where(ends_block, slots // block_size, 0)] = features

    def first_rows(self, admissions: Sequence[RowAdmission]) -> FirstRows:
        """Rows of the first token that each of these requests computes, and the features kept before it."""
        put = self._staging.put(
            {
                "rows": [entry.row for entry in admissions],
                "index": [entry.num_computed_tokens for entry in admissions],
                "block": [max(entry.last_cached_block, 0) for entry in admissions],
            }
        )
        count = len(admissions)
        rows = self._next_rows(
            rows=put["rows"],
            token_row=torch.arange(count, device=self._device),
            positions=put["index"] - 1,
            kv_lengths=put["index"] - self.first_index + 1,
            block_tables={group: self._table.block_tables[group][put["rows"]] for group in self._groups},
            row_counts=(1,) * count,
            length_bound=max(entry.num_computed_tokens for entry in admissions) + 1,
        )
        return FirstRows(self.boundary[put["block"]], rows, put["rows"], put["block"])

    def true_rows(self, batch: StepBatch) -> ForwardBatch:
        """Rows of the token after each of the target's, where it is known once the step is committed.

        As many rows as the target's batch has, in its order; those after a refused draft are padding.
        """
        target = batch.forward
        return self._next_rows(
            rows=batch.rows,
            token_row=batch.token_row,
            positions=target.positions,
            kv_lengths=target.kv_lengths,
            block_tables={group: target.groups[group].block_tables for group in self._groups},
            row_counts=target.row_counts,
            length_bound=target.kv_length_bound + 1,
        )

    def drafted_rows(self, batch: StepBatch, drafts: Tensor, *, verified: Verified, num_drafted: int) -> ForwardBatch:
        """Rows of each request's latest draft, one per request; padding where the request ends before it.

        drafts [R] int64, anything; num_drafted: drafts made so far, this one included.
        """
        tokens = {
            group: self._kernels.chain_drafted(
                self._table.num_tokens,
                self._table.max_total,
                self._table.block_tables[group],
                rows=batch.rows,
                drafts=drafts,
                num_emitted=verified.num_tokens,
                step=num_drafted,
                vocab_size=self._table.vocab_size,
                first_index=self.first_index,
                block_size=self._table.groups[group].block_size,
            )
            for group in self._groups
        }
        block_tables = {group: batch.forward.groups[group].block_tables for group in self._groups}
        counts, length_bound = (1,) * batch.num_rows, batch.length_bound + num_drafted
        return self._batch(tokens, block_tables, row_counts=counts, length_bound=length_bound)

    def _next_rows(
        self,
        *,
        rows: Tensor,
        token_row: Tensor,
        positions: Tensor,
        kv_lengths: Tensor,
        block_tables: Mapping[int, Tensor],
        row_counts: tuple[int, ...] | DeviceCounts,
        length_bound: int,
    ) -> ForwardBatch:
        """Rows of the token after each of `positions` [T]; see `chain_known` of the kernels."""
        tokens = {
            group: self._kernels.chain_known(
                self._table.token_ids,
                self._table.num_tokens,
                self._table.block_tables[group],
                rows=rows,
                token_row=token_row,
                positions=positions,
                kv_lengths=kv_lengths,
                first_index=self.first_index,
                block_size=self._table.groups[group].block_size,
            )
            for group in self._groups
        }
        return self._batch(tokens, block_tables, row_counts=row_counts, length_bound=length_bound)

    def _batch(
        self,
        tokens: Mapping[int, Any],
        block_tables: Mapping[int, Tensor],
        *,
        row_counts: tuple[int, ...] | DeviceCounts,
        length_bound: int,
    ) -> ForwardBatch:
        """A pass over `tokens`: `ChainTokens` for each of the drafter's groups, which differ in their slots only.

        block_tables [number of rows, max_blocks] int32 of each group; length_bound: host's bound on the KV length of a
        row.
        """
        first = self._groups[0]
        capacity = block_tables[first].shape[1] * self._table.groups[first].block_size
        return ForwardBatch(
            token_ids=tokens[first].token_ids,
            positions=tokens[first].positions,
            kv_lengths=tokens[first].kv_lengths,
            groups={group: GroupBatch(block_tables[group], tokens[group].slots) for group in self._groups},
            row_counts=row_counts,
            kv_length_bound=min(length_bound, capacity),
            kv_start=self.first_index,
        )
