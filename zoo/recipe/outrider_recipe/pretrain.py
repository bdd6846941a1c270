"""Trains the target on windows of code, exercises and arithmetic. Knows nothing of how these were made."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from outrider_recipe.fit import Budget, Curve, fit
from outrider_recipe.network import Target
from outrider_recipe.tokens import Share, draw_batch


def next_token_loss(hidden: Tensor, embedding: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy of hidden [rows, length, hidden_size] against the tokens wanted [rows, length]."""
    logits = functional.linear(hidden, embedding)
    return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())


def window_loss(target: Target, ids: Tensor, loss: Callable[..., Tensor] = next_token_loss) -> Tensor:
    """Mean cross-entropy of predicting each next token in ids [rows, length + 1]."""
    return loss(target.hidden(ids[:, :-1]), target.model.embed_tokens.weight, ids[:, 1:])


def train_target(
    target: Target,
    shares: Sequence[Share],
    *,
    length: int,
    budget: Budget,
    seed: int,
    compiled: bool,
    say: Callable[[str], None],
) -> Curve:
    """Train an initialised target in place, on its device."""
    device = target.model.embed_tokens.weight.device
    if compiled:
        target.compile_layers()
    loss = torch.compile(next_token_loss, dynamic=False) if compiled else next_token_loss
    random = torch.Generator(device=device).manual_seed(seed)

    def losses_at(step: int) -> Tensor:
        ids = draw_batch(shares, length=length + 1, random=random)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return window_loss(target, ids, loss)[None]

    return fit(list(target.named_parameters()), losses_at, budget=budget, say=say)


@torch.no_grad()
def mean_loss(target: Target, ids: Tensor, *, rows_at_once: int = 8) -> float:
    """Over fixed windows ids [rows, length + 1], in fp32."""
    losses = [window_loss(target, part) * part.shape[0] for part in ids.split(rows_at_once)]
    return float(torch.stack(losses).sum() / ids.shape[0])


def round_to_bf16(target: Target) -> None:
    """Round weights to bf16 in place: shipped weights are bf16, and everything after training sees them rounded."""
    with torch.no_grad():
        for weight in target.parameters():
            weight.copy_(weight.to(torch.bfloat16).float())
