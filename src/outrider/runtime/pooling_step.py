"""The step of a model that pools: the forward pass of every other step, then numbers instead of samples.

Sums over a text that comes in several chunks are kept in fp32 for each row of the table, and begin with its first
token. Nothing here waits for the device.
"""

import torch
from torch import Tensor

from outrider.core.pooler_config import CLS, LAST, MEAN, PoolerConfig
from outrider.device.assemble import Layout
from outrider.device.pooled_tokens import PooledTokens
from outrider.device.readback import PooledNumbers, pack_numbers
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.runtime.step import Forwarded, Step


class PoolingStep:
    """Runs steps of one model that pools; its plans have no drafts and emit no tokens."""

    def __init__(self, step: Step, pooler: PoolerConfig) -> None:
        """`step`: of the same model; its forward pass runs here."""
        self.pooler = pooler
        self._step = step
        self._kernels = step.kernels
        num_tokens = step.table.num_tokens
        rows = num_tokens.shape[0] if pooler.pooling != LAST else 0
        self._kept = torch.zeros(rows, step.model.config.hidden_size, device=num_tokens.device)
        """[N, hidden_size] fp32, for each table row the sum of its tokens so far, or its first token."""

    def __call__(self, layout: Layout) -> PooledNumbers:
        """Run one step; its results are read later."""
        return self.pool(layout, self._step.forward(layout))

    def pool(self, layout: Layout, forwarded: Forwarded) -> PooledNumbers:
        """The second part: pool, apply the head and the last function, and advance the rows."""
        assert layout.pooled is not None, "the step generates"
        batch = forwarded.batch
        numbers = self._numbers(forwarded.hidden, layout.pooled)
        nothing = torch.zeros_like(batch.num_known)
        self._step.table.commit(batch, Verified(nothing.unsqueeze(1), nothing, nothing))
        return pack_numbers(numbers)

    def _numbers(self, hidden: Hidden, pooled: PooledTokens) -> Tensor:
        """[M, size] fp32, the results of the step."""
        vectors = self._vectors(hidden.last, pooled)
        if not pooled.num_results:
            return vectors.new_zeros(0, 1, dtype=torch.float32)
        numbers = self._step.model.pool(vectors)
        if self.pooler.labels:
            return self._kernels.activate_labels(
                numbers, activation=self.pooler.activation, is_wanted=pooled.is_activated
            )
        sizes = torch.where(pooled.sizes > 0, pooled.sizes, numbers.shape[1])
        return self._kernels.normalize_vectors(numbers, sizes=sizes, is_wanted=pooled.is_activated)

    def _vectors(self, last: Tensor, pooled: PooledTokens) -> Tensor:
        """[M, hidden_size]: a text's vector by the model's pooling, a token's hidden state."""
        vectors = last[pooled.token_index]
        if self.pooler.pooling == LAST:
            return vectors
        if self.pooler.pooling == CLS:
            self._kept[pooled.first_rows] = last[pooled.first_index].to(torch.float32)
            texts = self._kept[pooled.text_rows]
        else:
            assert self.pooler.pooling == MEAN, f"{self.pooler.pooling!r} is not a pooling"
            self._kept[pooled.first_rows] = 0.0
            self._kernels.add_tokens(
                self._kept, last, rows=pooled.part_rows, starts=pooled.part_starts, counts=pooled.part_counts
            )
            texts = self._kept[pooled.text_rows] / pooled.text_lengths.unsqueeze(1)
        vectors = vectors.to(torch.float32)
        vectors[pooled.text_index] = texts
        return vectors
