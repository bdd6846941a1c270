"""Log-probabilities and ranks of chosen, given and most likely tokens."""

import torch
from torch import Tensor

from outrider.kernels.interface.sampling import Logprobs
from outrider.kernels.reference.row_sum import row_sum
from outrider.kernels.reference.sampling.row_max import below_max
from outrider.kernels.reference.sampling.sort_keys import finite, order_keys


def logprobs(logits: Tensor, token_ids: Tensor, *, num_top: int, given_ids: Tensor | None = None) -> Logprobs:
    """Log-probabilities of `token_ids` [num_rows] int64, of the `num_top` most likely tokens and of `given_ids`.

    logits [num_rows, vocab_size] fp32, raw; given_ids [num_rows, num_given] int64. At most vocab_size top tokens are
    returned; the first n of them are the same for every num_top >= n.
    """
    logits = finite(logits)
    all_logprobs = log_softmax(logits)
    top_ids = top(logits, min(num_top, logits.shape[1]))
    if given_ids is None:
        given_ids = token_ids.new_zeros(logits.shape[0], 0)
    given_ranks = [ranks(logits, column) for column in given_ids.unbind(dim=1)]
    return Logprobs(
        chosen=all_logprobs.gather(1, token_ids.unsqueeze(1)).squeeze(1),
        ranks=ranks(logits, token_ids),
        top_ids=top_ids,
        top_logprobs=all_logprobs.gather(1, top_ids),
        given=all_logprobs.gather(1, given_ids),
        given_ranks=torch.stack(given_ranks, dim=1) if given_ranks else given_ids,
    )


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities, [num_rows, vocab_size] fp32; -inf stays -inf, also where a row has nothing else."""
    shifted = below_max(logits)
    return torch.where(shifted == -torch.inf, shifted, shifted - torch.log(row_sum(torch.exp(shifted))))


def top(logits: Tensor, count: int) -> Tensor:
    """The first `count` ids of each row in order: [num_rows, count] int64; count <= vocab_size."""
    return order_keys(logits).topk(count, dim=1).indices


def ranks(logits: Tensor, token_ids: Tensor) -> Tensor:
    """1 + the number of tokens before `token_ids` ([num_rows] int64) in order: [num_rows] int64."""
    ids = torch.arange(logits.shape[1], device=logits.device)
    chosen = logits.gather(1, token_ids.unsqueeze(1))
    is_before = (logits > chosen) | ((logits == chosen) & (ids < token_ids.unsqueeze(1)))
    return is_before.sum(dim=1) + 1
