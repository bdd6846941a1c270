"""Trains a head (EAGLE-3, MTP) on the target's own distributions, by unrolling several draft steps.

The loss of step i is the cross-entropy between the target's distribution of a token and that of draft step i, over the
target ids that can be drafted. Knows nothing of how the texts were made.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from outrider_recipe.fit import Budget, Curve, fit
from outrider_recipe.head import Head
from outrider_recipe.hidden_states import features_and_distributions
from outrider_recipe.network import Target
from outrider_recipe.tokens import Share, draw_batch

STEP_WEIGHT = 0.85
"""Weight of each draft step's loss, relative to the step before."""


def draft_losses(
    head: Head, features: Tensor, ids: Tensor, wanted: Tensor, embedding: Tensor, num_steps: int
) -> Tensor:
    """Weighted loss of each step, [num_steps].

    wanted [rows, length, draft_vocab_size]: row j is the target's distribution of token j + 1.
    """
    length = ids.shape[1]
    losses = []
    for step, logits in enumerate(head.unroll(features, ids, embedding, num_steps=num_steps)):
        valid = length - 1 - step  # rows whose draft stands for a token that the target has judged
        labels = wanted[:, 1 + step : 1 + step + valid].float()
        log_drafted = logits[:, :valid].float().log_softmax(dim=-1)
        losses.append(-(labels * log_drafted).sum(dim=-1).mean() * STEP_WEIGHT**step)
    return torch.stack(losses)


def train_head(
    head: Head,
    named: Iterable[tuple[str, Tensor]],
    target: Target,
    shares: Sequence[Share],
    *,
    num_steps: int,
    length: int,
    budget: Budget,
    seed: int,
    compiled: bool,
    say: Callable[[str], None],
) -> Curve:
    """Train the parameters `named` of an initialised head in place; `num_steps` draft steps are unrolled."""
    embedding = target.model.embed_tokens.weight.detach()
    device = embedding.device
    if compiled:
        target.compile_layers()
    loss = torch.compile(draft_losses, dynamic=False) if compiled else draft_losses
    random = torch.Generator(device=device).manual_seed(seed)

    def losses_at(step: int) -> Tensor:
        ids = draw_batch(shares, length=length, random=random)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                features, wanted = features_and_distributions(target, ids, head.draft_ids)
            return loss(head, features, ids, wanted, embedding, num_steps)

    return fit(named, losses_at, budget=budget, say=say)
