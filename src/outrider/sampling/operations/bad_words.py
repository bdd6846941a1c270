"""Bad words: sequences of tokens that the output must not contain."""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_BAD_WORD_TOKENS, MAX_BAD_WORDS, SamplingParams
from outrider.sampling.operation import BaseOperation, Column, Value


class Operation(BaseOperation):
    """Forbids the last token of a word if the output ends with the word's other tokens."""

    kernel = "process"

    @property
    def columns(self) -> Sequence[Column]:
        shape = (MAX_BAD_WORDS, MAX_BAD_WORD_TOKENS)  # a word's tokens at the right, -1 before them
        return (
            Column(name="num_bad_words", dtype=torch.int64, neutral=0),
            Column(name="bad_words", dtype=torch.int32, neutral=-1, shape=shape),
        )

    def is_needed(self, params: SamplingParams) -> bool:
        return bool(params.bad_words)

    def values(self, admission: RowAdmission) -> Mapping[str, Value]:
        words = [[-1] * (MAX_BAD_WORD_TOKENS - len(word)) + list(word) for word in admission.bad_words]
        return {"num_bad_words": len(words), "bad_words": words}
