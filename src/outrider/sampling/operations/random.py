"""Temperature: the Gumbel argmax instead of the largest logit."""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Divides logits by the temperature and adds noise, which the request's seed and the position determine."""

    kernel = "choose"

    @property
    def columns(self) -> Sequence[Column]:
        return (Column(name="temperature", dtype=torch.float32, neutral=0.0),)  # 0 is greedy

    def is_needed(self, params: SamplingParams) -> bool:
        return not params.is_greedy

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        params = admission.params
        return {"temperature": 0.0 if params.is_greedy else params.temperature}
