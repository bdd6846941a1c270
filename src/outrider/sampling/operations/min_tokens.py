"""min_tokens: no stop id before the output has this many tokens."""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_STOP_TOKEN_IDS, SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Forbids stop ids at positions before `min_length`."""

    kernel = "process"

    @property
    def columns(self) -> Sequence[Column]:
        return (
            Column(name="min_length", dtype=torch.int64, neutral=0),  # absolute: prompt and min_tokens
            Column(name="num_stop_token_ids", dtype=torch.int64, neutral=0),
            Column(name="stop_token_ids", dtype=torch.int64, neutral=0, shape=(MAX_STOP_TOKEN_IDS,)),
        )

    def is_needed(self, params: SamplingParams) -> bool:
        return params.min_tokens > 0

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        stop_token_ids = admission.stop_token_ids if admission.params.min_tokens > 0 else ()
        return {
            "min_length": admission.num_prompt_tokens + admission.params.min_tokens,
            "num_stop_token_ids": len(stop_token_ids),
            "stop_token_ids": stop_token_ids,
        }
