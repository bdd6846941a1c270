"""Drafting in a chain: each pass of a small model drafts one token and reads the draft before it.

A row joins the target's feature at position j - 1 with the token at j, and its KV is stored at index j:

    token     x0   x1   x2   x3          index j holds K, V of (feature h[j-1], token x[j]);
    feature   h0   h1   h2               index 0 stays empty and is masked (first_index = 1);
    index          1    2    3           row j predicts token j + 1.

So the drafter's KV of a block depends on no token after it, and target and drafter blocks are published together under
one name. Only the feature of a block's last token is needed by the next index, so it is kept with the block
(`DrafterKV.boundary`) and used when a request resumes after a prefix-cache hit. Rotary positions are j - 1.

After each step the rows of all accepted tokens are written with true features, over the rows that the chain left there:
the chain's own rows are provisional, and remain only after the last known token.

A drafter that reads no features (an independent model) has features of width 0 and `first_index` 0; everything else is
identical.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.model_caches import CacheSpec
from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.drafter import BaseDrafter, DrafterContext
from outrider.speculation.drafter_kv import DrafterKV


class ChainDrafter(BaseDrafter):
    """Makes up to k drafts with one pass each of a small model over its own paged KV, in the engine's blocks."""

    first_index = 1
    """The first KV index that is written, for position 0 of the drafter."""

    def __init__(self, context: DrafterContext, *, feature_size: int) -> None:
        """feature_size: width of the features that a row joins with its token; 0: none."""
        super().__init__(context)
        self.num_lookahead = self.num_drafts - 1
        self.kv = DrafterKV(first_index=self.first_index, feature_size=feature_size, context=context)
        self._kernels = context.layers.kernels

    @property
    @abstractmethod
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        """Shape of the cache of each layer."""

    @property
    def extra_bytes_per_block(self) -> int:
        return self.kv.boundary_bytes

    @property
    @abstractmethod
    def bytes_per_step(self) -> int:
        """Bytes of weights that the passes of one step read together."""

    @abstractmethod
    def features(self, hidden: Hidden) -> Tensor:
        """The input feature [T, feature_size] of every target token of a step."""

    @abstractmethod
    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        """One pass, which writes KV.

        Returns the state [T, state_size]: `draft_logits` and `fed_back` read it.
        """

    def write_kv(self, features: Tensor, batch: ForwardBatch) -> None:
        """One pass that is run only to write KV."""
        self.forward(features, batch)

    @abstractmethod
    def draft_logits(self, state: Tensor) -> Tensor:
        """Draft logits [R, draft_vocab] fp32 of states [R, state_size]."""

    def fed_back(self, state: Tensor) -> Tensor:
        """The feature [R, feature_size] that the next pass reads, from this pass's state."""
        return state

    @property
    @abstractmethod
    def draft_token_ids(self) -> Tensor:
        """Target id of each draft id, [draft_vocab] int64."""

    def allocate(self, num_blocks: Sequence[int]) -> None:
        super().allocate(num_blocks)
        self.kv.allocate_boundary(num_blocks[0])

    def attach(self, table: RequestTable, staging: Staging) -> None:
        super().attach(table, staging)
        self.kv.attach(table, staging, self.caches)

    def needs_first_row(self, entry: RowAdmission) -> bool:
        """True if no row of the step writes the request's first index: its feature lies in a cached block."""
        return entry.last_cached_block >= 0

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Write the index before a request's rows, if there is one."""
        first = [entry for entry in admissions if self.needs_first_row(entry)]
        if first:
            rows = self.kv.first_rows(first)
            self.write_kv(rows.features, rows.batch)

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        features = self.features(hidden)
        self.kv.keep_boundary(batch.forward, features)
        rows = self.kv.true_rows(batch)
        length = self.table.num_tokens[batch.rows]
        if batch.num_proposals == 0:
            self.write_kv(features, rows)
            return length.new_empty(batch.num_rows, 0)
        last = batch.row_starts + batch.num_known + verified.num_accepted - 1
        state = self.forward(features, rows)[last]
        drafts = [self.choose_drafts(self.draft_logits(state), batch, length)]
        for index in range(1, batch.num_proposals):
            rows = self.kv.drafted_rows(batch, drafts[-1], verified=verified, num_drafted=index)
            state = self.forward(self.fed_back(state), rows)
            drafts.append(self.choose_drafts(self.draft_logits(state), batch, length + index))
        return torch.stack(drafts, dim=1)

    def choose_drafts(self, logits: Tensor, batch: StepBatch, positions: Tensor) -> Tensor:
        """Target ids [R] int64 of the drafts for `positions` [R]: the argmax of the draft logits [R, draft_vocab],
        under the noise that the target will use there if it samples."""
        sampling = self.table.sampling
        return self._kernels.draft_choose(
            logits,
            self.draft_token_ids,
            rows=batch.rows,
            positions=positions,
            temperature=sampling.columns["temperature"],
            seeds=sampling.seed,
            completion_indices=sampling.completion_index,
            has_random_rows=batch.sample.has_random_samples,
        )
