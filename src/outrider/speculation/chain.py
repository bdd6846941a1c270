"""Drafting with a KV cache of one's own: the part that all drafters with weights share (EAGLE-3, draft models).

A row of the drafter joins the target's feature at position j - 1 with the token at j, and its KV stands at index j:

    token     x0   x1   x2   x3          index j holds K, V of (feature h[j-1], token x[j]);
    feature   h0   h1   h2               index 0 stays empty and is masked (kv_start = 1);
    index          1    2    3           row j predicts token j + 1.

So the drafter's KV of a block depends on no token behind it, and target and drafter blocks are published together
under one name. Only the feature of a block's last token is needed by the next index, so it is kept with the block
(`boundary`) and used when a request resumes behind a prefix-cache hit. Rotary positions are j - 1.

After each step the rows of all accepted tokens are written with true features, over whatever the draft loop left
there; the loop's own rows are provisional, and stand only behind the last known token.

A drafter that reads no features (an independent model) has features of width 0 and `first_index` 0: nothing else
differs.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.kv import KVCache, KVSpec
from outrider.core.errors import ConfigError
from outrider.core.plan import RowAdmission
from outrider.device.step_batch import StepBatch
from outrider.layers.decoder import Hidden
from outrider.sampling.verifier import Verified
from outrider.speculation.drafter import BaseDrafter, DrafterContext


class ChainDrafter(BaseDrafter):
    """Up to k drafts from as many passes of a small model over its own paged KV, on the engine's blocks."""

    first_index = 1
    """The first KV index that is written: position 0 of the drafter stands there."""

    def __init__(self, context: DrafterContext, spec: KVSpec) -> None:
        """`spec`: shape of the drafter's own KV cache; its features are as wide as its hidden state."""
        super().__init__(context)
        refusal = context.layers.backend.refuses(spec, context.platform)
        if refusal is not None:
            raise ConfigError(f"attention backend {context.layers.backend.name!r} cannot run the drafter: {refusal}.")
        self.backend = context.layers.backend
        self.num_lookahead = self.num_drafts - 1
        self._spec = spec
        self._kernels = context.layers.kernels
        self._device = context.device

    @property
    def bytes_per_block(self) -> int:
        return self._spec.bytes_per_block + self.feature_size * self._spec.dtype.itemsize

    @property
    @abstractmethod
    def bytes_per_step(self) -> int:
        """Bytes of weights that the passes of one step read together."""

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """Width of features and states."""

    @abstractmethod
    def features(self, hidden: Hidden) -> Tensor:
        """The input feature [T, feature_size] of every target token of a step."""

    @abstractmethod
    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        """One pass; writes KV. Returns the state [T, feature_size]: of it come logits and the next feature."""

    def write_kv(self, features: Tensor, batch: ForwardBatch) -> None:
        """A pass whose state nobody wants."""
        self.forward(features, batch)

    @abstractmethod
    def draft_logits(self, state: Tensor) -> Tensor:
        """Draft logits [R, draft_vocab] fp32 of states [R, feature_size]."""

    def fed_back(self, state: Tensor) -> Tensor:
        """The feature that the next pass gets from this one's state."""
        return state

    @property
    @abstractmethod
    def draft_token_ids(self) -> Tensor:
        """Target id of each draft id, [draft_vocab] int64."""

    def allocate(self, num_blocks: int, block_size: int) -> None:
        self.caches = KVCache(self._spec, num_blocks, device=self._device)
        self.boundary = torch.zeros(num_blocks, self.feature_size, dtype=self._spec.dtype, device=self._device)
        self._block_size = block_size

    def needs_first_row(self, entry: RowAdmission) -> bool:
        """True where the first index to compute is no row of the step: its feature lies in a cached block."""
        return entry.last_cached_block >= 0

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Write the one index in front of a request's rows, where there is one to write."""
        first = [entry for entry in admissions if self.needs_first_row(entry)]
        if not first:
            return
        put = self.staging.put(
            {
                "rows": [entry.row for entry in first],
                "index": [entry.num_computed_tokens for entry in first],
                "block": [max(entry.last_cached_block, 0) for entry in first],
            }
        )
        count = len(first)
        tokens = self._kernels.chain_known(
            self.table.token_ids,
            self.table.num_tokens,
            self.table.block_tables,
            rows=put["rows"],
            token_row=torch.arange(count, device=self._device),
            positions=put["index"] - 1,
            kv_lengths=put["index"] - self.first_index + 1,
            first_index=self.first_index,
            block_size=self._block_size,
        )
        bound = max(entry.num_computed_tokens for entry in first) + 1
        block_tables = self.table.block_tables[put["rows"]]
        self.write_kv(self.boundary[put["block"]], self._batch(tokens, (1,) * count, block_tables, bound))

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        features = self.features(hidden)
        true_rows = self._true_rows(batch, features)
        length = self.table.num_tokens[batch.rows]
        if batch.num_proposals == 0:
            self.write_kv(features, true_rows)
            return length.new_empty(batch.num_rows, 0)
        last = batch.row_starts + batch.num_known + verified.num_accepted - 1
        state = self.forward(features, true_rows)[last]
        drafts = [self._pick(self.draft_logits(state), batch, length)]
        counts, block_tables = (1,) * batch.num_rows, batch.forward.block_tables
        for step in range(1, batch.num_proposals):
            tokens = self._kernels.chain_drafted(
                self.table.num_tokens,
                self.table.max_total,
                self.table.block_tables,
                rows=batch.rows,
                drafts=drafts[-1],
                num_emitted=verified.num_tokens,
                step=step,
                vocab_size=self.table.vocab_size,
                first_index=self.first_index,
                block_size=self._block_size,
            )
            pass_batch = self._batch(tokens, counts, block_tables, batch.length_bound + step)
            state = self.forward(self.fed_back(state), pass_batch)
            drafts.append(self._pick(self.draft_logits(state), batch, length + step))
        return torch.stack(drafts, dim=1)

    def _true_rows(self, batch: StepBatch, features: Tensor) -> ForwardBatch:
        """A pass over every token that is now known and whose feature this step computed."""
        target = batch.forward
        self._keep_boundary(target, features)
        tokens = self._kernels.chain_known(
            self.table.token_ids,
            self.table.num_tokens,
            self.table.block_tables,
            rows=batch.rows,
            token_row=batch.token_row,
            positions=target.positions,
            kv_lengths=target.kv_lengths,
            first_index=self.first_index,
            block_size=self._block_size,
        )
        return self._batch(tokens, target.row_counts, target.block_tables, target.kv_length_bound + 1)

    def _keep_boundary(self, target: ForwardBatch, features: Tensor) -> None:
        """Keep the feature of every token that ends a block; others go to the null block's place."""
        ends_block = (target.slots + 1) % self._block_size == 0
        self.boundary[torch.where(ends_block, target.slots // self._block_size, 0)] = features

    def _batch(self, tokens: Any, counts: tuple[int, ...], block_tables: Tensor, bound: int) -> ForwardBatch:
        """`tokens`: `ChainTokens`; block_tables [number of rows, max_blocks]."""
        return ForwardBatch(
            token_ids=tokens.token_ids,
            positions=tokens.positions,
            slots=tokens.slots,
            kv_lengths=tokens.kv_lengths,
            block_tables=block_tables,
            row_counts=counts,
            kv_length_bound=min(bound, block_tables.shape[1] * self._block_size),
            kv_start=self.first_index,
        )

    def _pick(self, logits: Tensor, batch: StepBatch, position: Tensor) -> Tensor:
        """Target ids [R] of the drafts for `position`: argmax, under the target's own noise where it will use it."""
        sampling = self.table.sampling
        return self._kernels.draft_choose(
            logits,
            self.draft_token_ids,
            rows=batch.rows,
            positions=position,
            temperature=sampling.temperature,
            seeds=sampling.seed,
            completion_indices=sampling.completion_index,
            has_random_rows=batch.sample.random_index is not None,
        )
