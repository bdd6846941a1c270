"""Allowed tokens: the output may contain no others."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Forbids every token that is not in `allowed_token_ids`."""

    kernel = "process"

    @property
    def columns(self) -> Sequence[Column]:
        return (Column(name="allowed", dtype=torch.int32, neutral=-1, shape=(self._num_words,)),)  # a bit per token

    @property
    def _num_words(self) -> int:
        return -(-self.vocab_size // 32)

    def is_needed(self, params: SamplingParams) -> bool:
        return params.allowed_token_ids is not None

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        token_ids = admission.params.allowed_token_ids
        if token_ids is None:
            return {"allowed": -1}
        bits = np.zeros(32 * self._num_words, dtype=bool)
        bits[list(token_ids)] = True
        return {"allowed": np.packbits(bits, bitorder="little").view("<i4")}
