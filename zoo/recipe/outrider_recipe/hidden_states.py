"""Generates the target's data that drafters are trained on: features, hidden states, distributions.

Knows neither drafters nor how the texts were made.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from outrider_recipe.network import Target
from outrider_recipe.tokens import Share, draw_batch


class HiddenStates(NamedTuple):
    """Windows of tokens and the target's hidden states."""

    ids: Tensor  # [rows, length] int64
    hidden: Tensor  # [rows, length, hidden_size] fp16, the target's, after its final norm


def features_and_distributions(target: Target, ids: Tensor, draft_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Features of ids [rows, length], and the target's distribution over draftable ids.

    [rows, length, the target's width of features] and [rows, length, draft_vocab_size], both in the features' dtype.
    """
    hidden, features = target(ids)
    logits = target.logits(hidden).float()
    return features, logits.softmax(dim=-1)[..., draft_ids].to(features.dtype)


@torch.no_grad()
def last_hidden_states(
    target: Target, shares: Sequence[Share], *, length: int, num_batches: int, random: torch.Generator
) -> HiddenStates:
    """Draw `num_batches` batches of windows and compute the target's last hidden state at every token.

    `Target.logits` turns hidden states into distributions, so a window is read by the target only once.
    """
    ids, hidden = [], []
    for _ in range(num_batches):
        ids.append(draw_batch(shares, length=length, random=random))
        hidden.append(target.hidden(ids[-1]).half())
    return HiddenStates(torch.cat(ids), torch.cat(hidden))
