"""Trains the target on windows of code, exercises and arithmetic. Knows nothing of how these were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from .checkpoints import load_target
from .fit import Budget, Curve, fit
from .network import Shape, Target
from .tokens import Share, draw_batch


def window_loss(target: Target, ids: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each next token in ids [rows, length + 1]."""
    hidden, _ = target(ids[:, :-1])
    return functional.cross_entropy(target.logits(hidden).flatten(0, 1).float(), ids[:, 1:].flatten())


def train_target(
    shape: Shape,
    shares: Sequence[Share],
    *,
    length: int,
    budget: Budget,
    seed: int,
    device: torch.device,
    compiled: bool,
    start_from: Path | None,
    say: Callable[[str], None],
) -> tuple[Target, Curve]:
    target = Target(shape)
    target.initialise(seed)
    if start_from is not None:
        target = load_target(start_from, device).requires_grad_(True)
    target.to(device)
    loss = torch.compile(window_loss, dynamic=False) if compiled else window_loss
    random = torch.Generator(device=device).manual_seed(seed)

    def losses_at(step: int) -> Tensor:
        ids = draw_batch(shares, length=length + 1, random=random)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return loss(target, ids)[None]

    curve = fit(list(target.named_parameters()), losses_at, budget=budget, say=say)
    return target, curve


@torch.no_grad()
def mean_loss(target: Target, ids: Tensor, *, rows_at_once: int = 8) -> float:
    """Over fixed windows ids [rows, length + 1], in fp32."""
    losses = [window_loss(target, part) * part.shape[0] for part in ids.split(rows_at_once)]
    return float(torch.stack(losses).sum() / ids.shape[0])


def round_to_bf16(target: Target) -> None:
    """What is shipped is bf16; everything after training sees the rounded weights."""
    with torch.no_grad():
        for weight in target.parameters():
            weight.copy_(weight.to(torch.bfloat16).float())
