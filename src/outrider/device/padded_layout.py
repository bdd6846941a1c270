"""The layout of a step of any rows, padded to fixed sizes: all of it is data in one buffer, so a graph can read it.

Rows come in the order of the plan, then unused rows, then one more that owns the padding tokens. All of these are the
table's padding row, for which a step does nothing. Padding samples are samples of that row, and are never read.

    tokens:  | row 0: 1 + k | row 1: chunk of 5 | ... | padding |
    rows:    | 0 | 1 | ... | unused, 0 tokens | padding |
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import StepPlan

_OF_ROWS = ("rows", "num_known", "draft_bound", "does_sample", "row_counts", "row_starts", "sample_starts")
_OF_TOKENS = ("token_row", "token_offset")
_OF_SAMPLES = ("sample_row", "sample_offset", "sample_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedSizes:
    """Sizes that a plan is padded to."""

    num_rows: int
    """Rows of requests; the layout has one more."""
    num_tokens: int
    num_samples: int

    @property
    def _sizes(self) -> dict[str, int]:
        """Number of integers of each part of the buffer, in its order."""
        return {
            **dict.fromkeys(_OF_ROWS, self.num_rows + 1),
            **dict.fromkeys(_OF_TOKENS, self.num_tokens),
            **dict.fromkeys(_OF_SAMPLES, self.num_samples),
        }

    @property
    def num_integers(self) -> int:
        """Size of the buffer."""
        return sum(map(_aligned, self._sizes.values()))

    def split(self, buffer: Tensor) -> Mapping[str, Tensor]:
        """Parts of a buffer [num_integers] int64 by name, as `Layout.numbers` names them; `row_counts` beside them."""
        sizes = self._sizes
        parts = torch.split(buffer, list(map(_aligned, sizes.values())))
        return {name: part[:size] for (name, size), part in zip(sizes.items(), parts, strict=True)}

    def fits(self, plan: StepPlan) -> bool:
        """True if the plan has no more rows, tokens and samples."""
        return (
            len(plan.rows) <= self.num_rows
            and plan.num_tokens <= self.num_tokens
            and sum(row.num_samples for row in plan.rows) <= self.num_samples
        )

    def fill(self, plan: StepPlan | None, *, padding_row: int) -> np.ndarray:
        """The numbers of a buffer for a plan that fits, [num_integers] int64. None: nothing but padding."""
        planned = [(row.row, row.num_tokens, row.num_drafts, row.does_sample) for row in plan.rows] if plan else []
        table = np.zeros((self.num_rows + 1, 4), dtype=np.int64)
        table[:, 0] = padding_row
        if planned:
            table[: len(planned)] = planned
        table[-1, 1] = self.num_tokens - table[:-1, 1].sum()
        rows, counts, draft_bound, does_sample = table.T
        samples = (1 + draft_bound) * does_sample
        row_starts, sample_starts = np.cumsum(counts) - counts, np.cumsum(samples) - samples
        token_row = np.repeat(np.arange(len(rows)), counts)
        sample_row = np.full(self.num_samples, self.num_rows)
        sample_offset, sample_index = np.zeros((2, self.num_samples), dtype=np.int64)
        num_samples = samples.sum()
        sample_row[:num_samples] = real = np.repeat(np.arange(len(rows)), samples)
        sample_offset[:num_samples] = offset = np.arange(num_samples) - sample_starts[real]
        sample_index[:num_samples] = (row_starts + counts - draft_bound - 1)[real] + offset
        parts = (
            rows, counts - draft_bound, draft_bound, does_sample, counts, row_starts,
            np.minimum(sample_starts, self.num_samples - 1),  # rows without samples name one that exists
            token_row, np.arange(self.num_tokens) - row_starts[token_row],
            sample_row, sample_offset, sample_index,
        )  # fmt: skip
        buffer, start = np.zeros(self.num_integers, dtype=np.int64), 0
        for part in parts:
            buffer[start : start + part.size] = part
            start += _aligned(part.size)
        return buffer


def _aligned(size: int) -> int:
    """Each part begins at a multiple of 16 bytes, so that no kernel is compiled for others."""
    return size + size % 2
