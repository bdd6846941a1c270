"""The tensors of one step: the assembler makes them; verifier, table and drafter read them."""

from dataclasses import dataclass

from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.sampling.sampler import SampleBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTokens:
    """Prompt tokens whose log-probabilities are requested, and the places in the step that predict them."""

    index: Tensor  # [P] int64, place in the flat batch of the token before
    token_ids: Tensor  # [P] int64, the prompt's own tokens
    num_logprobs: int  # largest number of top log-probabilities of one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One step on the device. R rows, S samples: the flat rows of logits, 1 + drafts for each row that samples."""

    forward: ForwardBatch
    rows: Tensor  # [R] int64, table rows
    token_row: Tensor  # [T] int64, row of the step of each token of the flat batch
    row_starts: Tensor  # [R] int64, first token of each row in the flat batch
    num_known: Tensor  # [R] int64, tokens that are not drafts
    num_drafts: Tensor  # [R] int64, real drafts
    num_tokens_left: Tensor  # [R] int64, tokens the request may still emit
    drafts: Tensor  # [R, K] int64; K is the layout's number of drafts
    sample_index: Tensor  # [S] int64, place of each sample in the flat batch
    sample_starts: Tensor  # [R] int64, first sample of each row
    num_samples: Tensor  # [R] int64, 1 + real drafts; 0 for a chunk that is not the last, or with no tokens left
    sample: SampleBatch
    samples_of_rows: tuple[int, ...]  # samples in the layout of each row
    length_bound: int  # the host's upper bound on the known tokens of any row after this step
    num_proposals: int  # number of drafts to make for each row's next step
    scored: ScoredTokens | None = None  # None: not requested

    @property
    def num_rows(self) -> int:
        return self.forward.num_rows
