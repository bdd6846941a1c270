"""Truncation: top_k, top_p and min_p keep the most likely tokens of a random sample."""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Removes tokens at the end of the order (logit descending, id ascending)."""

    kernel = "choose"

    @property
    def columns(self) -> Sequence[Column]:
        return (
            Column(name="top_k", dtype=torch.int64, neutral=0),  # 0 keeps all
            Column(name="top_p", dtype=torch.float32, neutral=1.0),
            Column(name="min_p", dtype=torch.float32, neutral=0.0),
        )

    def is_needed(self, params: SamplingParams) -> bool:
        return params.has_truncation

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        params = admission.params
        return {"top_k": params.top_k, "top_p": params.top_p, "min_p": params.min_p}
