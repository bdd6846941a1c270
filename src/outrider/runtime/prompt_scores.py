"""Log-probabilities of prompt tokens, in slices of rows: the logits of a whole prompt are never in memory at once.

Knows a model's head and a step; nothing of requests.
"""

import torch

from outrider.device.step_batch import ScoredTokens
from outrider.kernels.interface.sampling import Logprobs
from outrider.layers.decoder import CausalLM, Hidden

ROWS_AT_ONCE = 128
"""Number of rows of logits in memory at once; a row's bits do not depend on it."""


def score_prompt(model: CausalLM, hidden: Hidden, scored: ScoredTokens) -> Logprobs:
    """Log-probabilities of the scored tokens, each from the hidden state of the token before it."""
    parts = [
        model.context.kernels.logprobs(model.logits(hidden.last[index]), token_ids, num_top=scored.num_logprobs)
        for index, token_ids in zip(scored.index.split(ROWS_AT_ONCE), scored.token_ids.split(ROWS_AT_ONCE), strict=True)
    ]
    return Logprobs(*(torch.cat(column) for column in zip(*parts, strict=True)))
