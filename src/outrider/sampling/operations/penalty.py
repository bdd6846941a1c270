"""Penalties on tokens that the output or the prompt has: repetition, presence and frequency.

The sampling table itself records those tokens (`prompt_mask`, `output_counts`), because every step adds some.
"""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Lowers, or raises, logits of tokens seen before."""

    kernel = "process"

    @property
    def columns(self) -> Sequence[Column]:
        return (
            Column(name="repetition", dtype=torch.float32, neutral=1.0),
            Column(name="presence", dtype=torch.float32, neutral=0.0),
            Column(name="frequency", dtype=torch.float32, neutral=0.0),
        )

    def is_needed(self, params: SamplingParams) -> bool:
        return params.has_penalties

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        params = admission.params
        return {
            "repetition": params.repetition_penalty,
            "presence": params.presence_penalty,
            "frequency": params.frequency_penalty,
        }
