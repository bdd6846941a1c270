"""A device that takes no time: it answers every plan with tokens from a script, in the form of packed results.

It keeps the contract of a step (a chunk that is not the last emits nothing; a row emits 1 … 1 + drafts tokens and never
more than it has left) and computes nothing. It serves to measure the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from outrider.core.plan import StepPlan, StepResult
from outrider.device.readback import Packed, unpack

_GOLDEN = 0.6180339887498949
"""Its multiples modulo 1 are spread evenly, which gives the requested acceptance without a generator."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The results of a step, available at once."""

    plan: StepPlan
    packed: Packed

    def wait(self) -> StepResult:
        """Unpacks the results, as the host does when a step has ended."""
        return unpack(self.plan, self.packed, self.packed.data)


class NullDevice:
    """Emits `script` cyclically for every row, each from its own position; accepts drafts at `acceptance_rates`."""

    def __init__(self, script: Sequence[int], *, max_rows: int, acceptance_rates: Sequence[float] = ()) -> None:
        """acceptance_rates[i]: share of steps that accept draft i and all before it."""
        self._script = np.asarray(script, dtype=np.int64)
        self._rates = np.asarray(acceptance_rates, dtype=np.float64)
        self._positions = np.arange(max_rows) * 7  # position in the script
        self._num_tokens_left = np.zeros(max_rows, dtype=np.int64)
        self._num_steps = 0

    def step(self, plan: StepPlan) -> Answer:
        """Answers one step."""
        self._num_steps += 1
        for entry in plan.admissions:
            self._num_tokens_left[entry.row] = entry.max_total_tokens - len(entry.token_ids)
        rows = np.array([row.row for row in plan.rows])
        num_drafts = np.array([row.num_drafts for row in plan.rows])
        does_sample = np.array([row.does_sample for row in plan.rows])
        draw = (rows * 31 + self._num_steps) * _GOLDEN % 1.0
        num_equal = np.minimum((draw[:, None] < self._rates).sum(axis=1), num_drafts)
        num_tokens = np.minimum(num_equal + 1, self._num_tokens_left[rows]) * does_sample
        places = np.arange(1 + len(self._rates))
        script = self._script[(self._positions[rows, None] + places) % len(self._script)]
        parts = {
            "token_ids": np.where(places < num_tokens[:, None], script, 0),
            "num_tokens": num_tokens,
            "num_accepted": np.minimum(num_equal, num_tokens),
            "num_drafts": num_drafts * (num_tokens > 0),
        }
        self._positions[rows] += num_tokens
        self._num_tokens_left[rows] -= num_tokens
        data = torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts.values()]))
        shapes = tuple(torch.Size(part.shape) for part in parts.values())
        return Answer(plan, Packed(tuple(parts), shapes, data, tuple(row.num_samples for row in plan.rows)))
