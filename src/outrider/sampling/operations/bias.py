"""Logit bias: adds a value to the logits of given tokens."""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_LOGIT_BIAS, SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value

_LARGEST = torch.finfo(torch.float32).max


class Operation(BaseOperation):
    """Adds `logit_bias`, clamped to fp32."""

    kernel = "process"

    @property
    def columns(self) -> Sequence[Column]:
        return (
            Column(name="num_logit_bias", dtype=torch.int64, neutral=0),
            Column(name="logit_bias_ids", dtype=torch.int64, neutral=0, shape=(MAX_LOGIT_BIAS,)),
            Column(name="logit_bias", dtype=torch.float32, neutral=0.0, shape=(MAX_LOGIT_BIAS,)),
        )

    def is_needed(self, params: SamplingParams) -> bool:
        return bool(params.logit_bias)

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        bias = admission.params.logit_bias or {}
        return {
            "num_logit_bias": len(bias),
            "logit_bias_ids": list(bias),
            "logit_bias": [min(max(value, -_LARGEST), _LARGEST) for value in bias.values()],
        }
