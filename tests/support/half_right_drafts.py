"""Drafts that are right or wrong by position, so that every accepted count occurs with a drafter of random weights.

The drafter runs as ever and goes on from what it was given; only what it picked is replaced, on the device, so that it
can be captured.
"""

from collections.abc import Sequence

import pytest
import torch

from outrider.speculation.chain import ChainDrafter

WRONG = (0, 2, 5, 10)
"""Positions modulo 11 at which the drafter's own pick is kept; between them lie runs of 1 to 4 right drafts."""


def make_half_right(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[tuple[Sequence[int], Sequence[int]]], *, device: str = "cpu"
) -> None:
    """`answers`: prompts and their outputs. A request gets those of the longest prompt that it begins with."""
    most = max(len(prompt) + len(output) for prompt, output in answers)
    tokens = torch.zeros(len(answers), most, dtype=torch.int64)
    for row, (prompt, output) in enumerate(answers):
        tokens[row, : len(prompt) + len(output)] = torch.tensor([*prompt, *output])
    lengths = torch.tensor([len(prompt) for prompt, _ in answers], device=device)
    ends = torch.tensor([len(prompt) + len(output) for prompt, output in answers], device=device)
    tokens = tokens.to(device)
    original = ChainDrafter.choose_drafts

    def pick(drafter, logits, batch, position):
        picked = original(drafter, logits, batch, position)
        known = drafter.table.token_ids[batch.rows, :most].long()
        width = known.shape[1]
        is_behind = torch.arange(width, device=device) >= lengths[:, None]
        is_same = ((known[:, None, :] == tokens[:, :width]) | is_behind).all(dim=2)
        found = (is_same * lengths).argmax(dim=1)
        is_right = is_same.any(dim=1) & (position < ends[found])
        for place in WRONG:
            is_right = is_right & (position % 11 != place)
        return torch.where(is_right, tokens[found, position.clamp(max=most - 1)], picked)

    monkeypatch.setattr(ChainDrafter, "choose_drafts", pick)
