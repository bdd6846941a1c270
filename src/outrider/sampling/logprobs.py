"""Log-probabilities of the raw distribution: before bias, penalties, temperature and truncation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.kernels.reference import sampling as kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """What the model thought of the chosen token and of the most likely ones, one row per sample."""

    chosen: Tensor  # [num_samples] fp32
    ranks: Tensor  # [num_samples] int64, 1 for the most likely token; ties count the lower id first
    top_ids: Tensor  # [num_samples, num_logprobs] int64, in order
    top_logprobs: Tensor  # [num_samples, num_logprobs] fp32
    given: Tensor  # [num_samples, num_given] fp32, of token ids that were asked for
    given_ranks: Tensor  # [num_samples, num_given] int64


def compute_logprobs(
    logits: Tensor, token_ids: Tensor, *, num_logprobs: int, given_ids: Tensor | None = None
) -> Logprobs:
    """Log-probabilities of `token_ids` ([num_samples] int64) and of the `num_logprobs` most likely tokens.

    given_ids [num_samples, num_given] int64: tokens that are asked for by name. logits: [num_samples, vocab_size] fp32 without NaN. At most vocab_size top tokens are returned. The first n of
    the top tokens are the same for every num_logprobs >= n, so a request reads the part that it asked for.
    """
    logprobs = kernels.log_softmax(logits)
    top_ids = kernels.top(logits, min(num_logprobs, logits.shape[1]))
    if given_ids is None:
        given_ids = token_ids.new_zeros(logits.shape[0], 0)
    ranks = [kernels.ranks(logits, column) for column in given_ids.unbind(dim=1)]
    return Logprobs(
        chosen=logprobs.gather(1, token_ids.unsqueeze(1)).squeeze(1),
        ranks=kernels.ranks(logits, token_ids),
        top_ids=top_ids,
        top_logprobs=logprobs.gather(1, top_ids),
        given=logprobs.gather(1, given_ids),
        given_ranks=torch.stack(ranks, dim=1) if ranks else given_ids,
    )
