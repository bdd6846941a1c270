"""Drafting with several modules in a row: module m makes the m-th draft, from the states of module m - 1.

In the index of `chain.py`, module 1 stores at index j the row (feature h[j-1], token x[j]), and its state there is
z1[j]. Module m stores (z(m-1)[j-1], x[j]), so its first index is m, and like every row of a drafter it depends on no
token after j. With the last known token at index n and drafts d:

    module 1:  ... (h[n-1], x[n])                                          state z1[n]   -> d[n+1]
    module 2:  ... (z1[n-1], x[n])  (z1[n], d[n+1])                        state z2[n+1] -> d[n+2]
    module 3:  ... (z2[n-1], x[n])  (z2[n], d[n+1])  (z2[n+1], d[n+2])     state z3[n+2] -> d[n+3]

Further drafts come from the last module, which reads its own states. In each step all modules first go over the rows of
accepted tokens (the dots), one after the other, because each needs the states of the one before. Two states are kept
for this between steps: of each request's last known token (`_last_states`), and of each block's last token
(`_boundaries`), where a request resumes after a prefix-cache hit. With one module nothing is kept, and this is the
chain.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.zeroed import zeroed
from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.chain import ChainDrafter
from outrider.speculation.drafter import DrafterContext


class ModuleChain(ChainDrafter):
    """A chain whose first drafts come from one module each."""

    def __init__(self, context: DrafterContext, *, feature_size: int, num_modules: int) -> None:
        """feature_size: width of the features and of all states."""
        super().__init__(context, feature_size=feature_size)
        self.num_modules = num_modules
        self._feature_size = feature_size
        self._dtype, self._device = context.layers.dtype, context.device

    @abstractmethod
    def run(self, module: int, features: Tensor, batch: ForwardBatch) -> Tensor:
        """One pass of a module (from 0 on), which writes its KV: features [T, feature_size] -> states of that shape."""

    @property
    def extra_bytes_per_block(self) -> int:
        return self.num_modules * self.kv.boundary_bytes

    def allocate(self, num_blocks: Sequence[int]) -> None:
        super().allocate(num_blocks)
        self._boundaries = self._states(num_blocks[0])

    def attach(self, table: RequestTable, staging: Staging) -> None:
        super().attach(table, staging)
        assert self.num_modules == 1 or 0 in self.caches.group_indices, "boundaries are those of the first group"
        self._last_states = self._states(table.num_tokens.shape[0])

    def _states(self, count: int) -> Tensor:
        """[num_modules - 1, count, feature_size]: of each module but the last."""
        shape = (self.num_modules - 1, count, self._feature_size)
        return zeroed(shape, dtype=self._dtype, device=self._device)

    def forward(self, features: Tensor, batch: ForwardBatch) -> Tensor:
        """A pass of the last module."""
        return self._run(self.num_modules - 1, features, batch)

    def _run(self, module: int, features: Tensor, batch: ForwardBatch) -> Tensor:
        """`run`; indices before the module's first are masked."""
        return self.run(module, features, replace(batch, kv_start=self.first_index + module))

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        first = [entry for entry in admissions if self.needs_first_row(entry)]
        if not first:
            return
        features, batch, rows, blocks = self.kv.first_rows(first)
        for module in range(self.num_modules):
            state = self._run(module, features, batch)
            if module + 1 < self.num_modules:
                self._last_states[module, rows] = state
                features = self._boundaries[module, blocks]

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        features = self.features(hidden)
        self.kv.keep_boundary(batch.forward, features)
        rows = self.kv.true_rows(batch)
        length = self.table.num_tokens[batch.rows]
        last = batch.row_starts + batch.num_known + verified.num_accepted - 1
        states = self._true_passes(features, rows, batch, last=last)  # of each module, from the last known token on
        if batch.num_proposals == 0:
            return length.new_empty(batch.num_rows, 0)
        drafts = [self.choose_drafts(self.draft_logits(states[0][0]), batch, length)]
        for index in range(1, batch.num_proposals):
            module = min(index, self.num_modules - 1)
            is_new = module == index
            for depth in range(1 if is_new else index, index + 1):
                rows = self.kv.drafted_rows(batch, drafts[depth - 1], verified=verified, num_drafted=depth)
                feature = states[module - 1 if is_new else module][depth - 1]
                states[module].append(self._run(module, feature, rows))
            drafts.append(self.choose_drafts(self.draft_logits(states[module][-1]), batch, length + index))
        return torch.stack(drafts, dim=1)

    def _true_passes(
        self, features: Tensor, rows: ForwardBatch, batch: StepBatch, *, last: Tensor
    ) -> list[list[Tensor]]:
        """All modules over the rows of accepted tokens; for each, a list with its state [R, feature_size] of each row's
        last one."""
        states = []
        for module in range(self.num_modules):
            state = self._run(module, features, rows)
            states.append([state[last]])
            if module + 1 < self.num_modules:
                features = self._shifted(state, batch, module)
                self._keep(state, rows, batch, module=module, last=last)
        return states

    def _shifted(self, state: Tensor, batch: StepBatch, module: int) -> Tensor:
        """The states [T, feature_size] of the token before each; of a row's first one, the state from its last step."""
        places = torch.arange(state.shape[0], device=state.device)
        is_first = places == batch.row_starts[batch.token_row]
        before = self._last_states[module, batch.rows[batch.token_row]]
        return torch.where(is_first[:, None], before, state.roll(1, dims=0))

    def _keep(self, state: Tensor, rows: ForwardBatch, batch: StepBatch, *, module: int, last: Tensor) -> None:
        """Keep the states of the rows' last tokens, and of those that end a block; padding has slot 0, in the null
        block."""
        self._last_states[module, batch.rows] = state[last]
        slots, block_size = rows.groups[0].slots, self.table.groups[0].block_size
        ends_block = (slots + 1) % block_size == 0
        self._boundaries[module, torch.where(ends_block, slots // block_size, 0)] = state
