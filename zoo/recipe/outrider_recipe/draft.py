"""Trains a small model with the target's vocabulary to predict what the target predicts: `method: "draft_model"`.

The loss is the cross-entropy between the target's whole distribution of each next token and the draft's. The
embedding starts as the target's. Knows nothing of how the texts were made.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from outrider_recipe.fit import Budget, Curve, fit
from outrider_recipe.hidden_states import last_hidden_states
from outrider_recipe.network import Shape, Target
from outrider_recipe.tokens import Share

_FIRST_SCALE = 0.1
"""First weight of the final norm. With 1, and the target's embedding as head, random layers would begin with very
peaked distributions."""


def draft_shape(target: Shape, *, num_layers: int, intermediate_size: int) -> Shape:
    """Same width as the target, so that the embedding can be shared at the start; fewer and slimmer layers."""
    return Shape(
        vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=target.num_heads,
        num_kv_heads=target.num_kv_heads,
        head_dim=target.head_dim,
        rope_theta=target.rope_theta,
        norm_eps=target.norm_eps,
        max_length=target.max_length,
    )


def draft_loss(draft: Target, target: Target, ids: Tensor, hidden: Tensor) -> Tensor:
    """Mean over ids [rows, length] of the cross-entropy against the target's next-token distribution."""
    with torch.no_grad():
        wanted = target.logits(hidden.float()).softmax(dim=-1)
    said = draft.logits(draft.hidden(ids)).float().log_softmax(dim=-1)
    return -(wanted * said).sum(dim=-1).mean()


def train_draft(
    shape: Shape,
    target: Target,
    shares: Sequence[Share],
    *,
    length: int,
    num_batches: int,
    rows_at_once: int,
    budget: Budget,
    seed: int,
    compiled: bool,
    say: Callable[[str], None],
) -> tuple[Target, Curve]:
    """A draft model for `target`, in fp32, and its curve. Each step takes `rows_at_once` of the judged windows."""
    device = target.model.embed_tokens.weight.device
    draft = Target(shape)
    draft.initialise(seed)
    with torch.no_grad():
        draft.model.embed_tokens.weight.copy_(target.model.embed_tokens.weight.cpu())
        draft.model.norm.weight.fill_(_FIRST_SCALE)
    draft.to(device)
    random = torch.Generator(device=device).manual_seed(seed)
    judged = last_hidden_states(target, shares, length=length, num_batches=num_batches, random=random)
    say(f"{judged.ids.numel()} tokens judged")
    loss = torch.compile(draft_loss, dynamic=False) if compiled else draft_loss

    def losses_at(step: int) -> Tensor:
        rows = torch.randint(judged.ids.shape[0], (rows_at_once,), generator=random, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return loss(draft, target, judged.ids[rows], judged.hidden[rows])[None]

    curve = fit(list(draft.named_parameters()), losses_at, budget=budget, say=say)
    return draft, curve
