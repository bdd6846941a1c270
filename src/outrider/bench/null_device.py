"""A device that takes no time: it answers any plan from a script, in the form in which results are read back.

It keeps the contract of a step (a chunk that is not the last emits nothing, a row emits 1 … 1 + drafts tokens and never
more than it has room for) and computes nothing. For measuring the host; its answers are no model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from outrider.core.plan import StepPlan, StepResult
from outrider.device.readback import Packed, unpack

_GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly: acceptance as asked for, without a generator."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A step that has already ended."""

    plan: StepPlan
    packed: Packed

    def wait(self) -> StepResult:
        """What the host does once a step has ended."""
        return unpack(self.plan, self.packed, self.packed.data)


class NullDevice:
    """Every row says `script`, over and over, from its own place; drafts are accepted at `acceptance_rates`."""

    def __init__(self, script: Sequence[int], *, max_rows: int, acceptance_rates: Sequence[float] = ()) -> None:
        """acceptance_rates: share of steps that accept draft i and all before it, one for each draft."""
        self._script = np.asarray(script, dtype=np.int64)
        self._rates = np.asarray(acceptance_rates, dtype=np.float64)
        self._num_said = np.arange(max_rows) * 7  # place in the script
        self._room = np.zeros(max_rows, dtype=np.int64)
        self._num_steps = 0

    def step(self, plan: StepPlan) -> Answer:
        """Answer one step."""
        self._num_steps += 1
        for entry in plan.admissions:
            self._room[entry.row] = entry.max_total_tokens - len(entry.token_ids)
        rows = np.array([row.row for row in plan.rows])
        num_drafts = np.array([row.num_drafts for row in plan.rows])
        does_sample = np.array([row.does_sample for row in plan.rows])
        luck = (rows * 31 + self._num_steps) * _GOLDEN % 1.0
        num_equal = np.minimum((luck[:, None] < self._rates).sum(axis=1), num_drafts)
        num_tokens = np.minimum(num_equal + 1, self._room[rows]) * does_sample
        places = np.arange(1 + len(self._rates))
        script = self._script[(self._num_said[rows, None] + places) % len(self._script)]
        parts = {
            "token_ids": np.where(places < num_tokens[:, None], script, 0),
            "num_tokens": num_tokens,
            "num_accepted": np.minimum(num_equal, num_tokens),
            "num_drafts": num_drafts * (num_tokens > 0),
        }
        self._num_said[rows] += num_tokens
        self._room[rows] -= num_tokens
        data = torch.from_numpy(np.concatenate([part.reshape(-1) for part in parts.values()]))
        shapes = tuple(torch.Size(part.shape) for part in parts.values())
        return Answer(plan, Packed(tuple(parts), shapes, data, tuple(row.num_samples for row in plan.rows)))
