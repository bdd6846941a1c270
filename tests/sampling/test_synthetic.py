"""Synthetic acceptance: at the rates asked for, keyed by seed and position; the emitted tokens are the drafts."""

import pytest
import torch

from outrider.kernels.reference.sampling.verify import verify
from outrider.sampling.synthetic import synthetic_acceptance

RATES = (0.75, 0.55, 0.40)
NUM_ROWS = 40


def step(seeds: torch.Tensor, lengths: torch.Tensor, rates: tuple[float, ...] = RATES, **given: torch.Tensor):
    """One step of all rows with three drafts each; drafts are 100 + row, samples 200 + place."""
    num_rows = len(seeds)
    rows = given.get("rows", torch.arange(num_rows))
    return verify(
        200 + torch.arange(4).repeat(len(rows)),
        sample_starts=torch.arange(len(rows)) * 4,
        num_samples=given.get("num_samples", torch.full((len(rows),), 4)),
        drafts=(100 + rows).unsqueeze(1).expand(-1, 3),
        num_tokens_left=given.get("num_tokens_left", torch.full((len(rows),), 99)),
        rows=rows,
        synthetic=synthetic_acceptance(rates, seeds=seeds, lengths=lengths),
    )


def test_drafts_are_accepted_at_the_rates() -> None:
    seeds = torch.arange(NUM_ROWS) * 7919 - 3
    lengths = torch.full((NUM_ROWS,), 512)
    counts = torch.zeros(4)
    num_steps = 0
    for _ in range(80):
        verified = step(seeds, lengths)
        lengths = lengths + verified.num_tokens
        counts += torch.bincount(verified.num_accepted, minlength=4)
        num_steps += NUM_ROWS
    found = counts.flip(0).cumsum(0).flip(0)[1:] / num_steps
    assert torch.allclose(found, torch.tensor(RATES), atol=0.02), found


@pytest.mark.parametrize(("rates", "accepted"), [((0.0, 0.0, 0.0), 0), ((1.0, 0.0, 0.0), 1), ((1.0, 1.0, 1.0), 3)])
def test_emitted_tokens_are_the_drafts_and_then_the_sample(rates: tuple[float, ...], accepted: int) -> None:
    verified = step(torch.arange(5), torch.arange(5), rates)
    for row, tokens in enumerate(verified.token_ids.tolist()):
        assert tokens == ([100 + row] * accepted + [200 + accepted] + [0] * 3)[:4]
    assert verified.num_accepted.tolist() == [accepted] * 5
    assert verified.num_tokens.tolist() == [accepted + 1] * 5


def test_the_draw_depends_on_seed_and_position_only() -> None:
    seeds, lengths = torch.arange(NUM_ROWS) * 31, torch.arange(NUM_ROWS) + 100
    whole = step(seeds, lengths).num_accepted
    some = torch.tensor([7, 3, 30])
    assert step(seeds, lengths, rows=some).num_accepted.tolist() == whole[some].tolist()
    assert step(seeds, lengths + 1).num_accepted.tolist() != whole.tolist()
    assert step(seeds + 1, lengths).num_accepted.tolist() != whole.tolist()


def test_only_real_drafts_are_accepted_and_few_tokens_left_cut() -> None:
    seeds = lengths = torch.arange(4)
    ones = (1.0, 1.0, 1.0)
    verified = step(seeds, lengths, ones, num_samples=torch.tensor([1, 2, 4, 0]))
    assert verified.num_tokens.tolist() == [1, 2, 4, 0]
    assert verified.token_ids[:, :2].tolist() == [[200, 0], [101, 201], [102, 102], [0, 0]]
    verified = step(seeds, lengths, ones, num_tokens_left=torch.tensor([2, 0, 1, 9]))
    assert verified.num_tokens.tolist() == [2, 0, 1, 4]
    assert verified.num_accepted.tolist() == [2, 0, 1, 3]
