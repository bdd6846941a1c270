"""The training loop that target and head share: schedule, steps, log. Knows neither model nor data."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from outrider_recipe.muon import optimisers

LOG_EVERY = 50
WARMUP = 100  # steps
CALIBRATE = 60, 110  # the steps between which the speed is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    steps: int
    """Upper limit of optimiser steps."""
    seconds: float
    """If the measured speed says that `steps` will not fit, fewer are made; the number is recorded."""
    lr: float
    decay: float = 0.05
    cooldown: float = 0.45
    """The last part of the steps, over which the learning rate falls linearly to zero."""


@dataclass(slots=True)
class Curve:
    """One point per LOG_EVERY steps."""

    steps: list[int] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    planned_steps: int = 0


def rate(step: int, total: int, *, cooldown: float) -> float:
    """Linear warm-up, flat, linear to zero."""
    return min((step + 1) / WARMUP, 1.0, (total - step) / max(1.0, cooldown * total))


def fit(
    named: Iterable[tuple[str, Tensor]],
    losses_at: Callable[[int], Tensor],
    *,
    budget: Budget,
    say: Callable[[str], None],
) -> Curve:
    """Minimise the sum of `losses_at(step)` [any number of parts]; the parts are logged apart."""
    parameters = list(named)
    all_optimisers = optimisers(parameters, lr=budget.lr, decay=budget.decay)
    curve, recent = Curve(planned_steps=budget.steps), []
    started = calibrated = time.monotonic()
    total, step = budget.steps, 0
    while step < total:
        for optimiser in all_optimisers:
            for group in optimiser.param_groups:
                group["lr"] = budget.lr * rate(step, total, cooldown=budget.cooldown)
        losses = losses_at(step)
        losses.sum().backward()
        recent.append(losses.detach())
        for optimiser in all_optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        if step in CALIBRATE:
            recent[-1].sum().item()  # wait for the device, so that the clock is honest
            if step == CALIBRATE[0]:
                calibrated = time.monotonic()
            else:
                each = (time.monotonic() - calibrated) / (CALIBRATE[1] - CALIBRATE[0])
                left = budget.seconds - (time.monotonic() - started)
                total = min(total, step + max(0, int(left / each)))
                curve.planned_steps = total
                say(f"{1000 * each:.1f} ms a step, {total} steps planned")
        if step % LOG_EVERY == 0 or step == total:
            parts = torch.stack(recent).mean(dim=0).tolist()
            recent = []
            elapsed = time.monotonic() - started
            curve.steps.append(step)
            curve.losses.append([round(part, 5) for part in parts])
            curve.seconds.append(round(elapsed, 1))
            if step % (LOG_EVERY * 10) == 0 or step == total:
                say(f"step {step}/{total} {elapsed:.0f} s loss " + " ".join(f"{part:.4f}" for part in parts))
            if elapsed > 1.15 * budget.seconds:
                say("over the time budget: stopped before the schedule ended")
                break
    return curve
