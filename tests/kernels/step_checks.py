"""Conformance checks of a step's index arithmetic: random steps over a random request table, against the oracle."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from tests.kernels.subject import Subject

NUM_STEPS = 12
BLOCK_SIZE = 4
VOCAB_SIZE = 50


class Step:
    """A table of requests in every state, and a step over some of them in any order."""

    def __init__(self, rng: random.Random, num_table_rows: int, num_drafts: int) -> None:
        self.rng, self.num_drafts = rng, num_drafts
        width, max_blocks = 40, 10
        count = num_table_rows
        self.token_ids = self.integers(count, width, high=VOCAB_SIZE).int()
        self.num_tokens = self.integers(count, low=1, high=24)
        self.num_computed = (self.num_tokens - self.integers(count, low=1, high=9)).clamp(min=0)
        self.max_total = self.num_tokens + self.integers(count, low=-1, high=6)
        self.drafts = self.integers(count, num_drafts, high=VOCAB_SIZE)
        self.num_real = self.integers(count, high=num_drafts + 1)
        self.tables = self.integers(count, max_blocks, high=99).int()
        self.rows = torch.tensor(rng.sample(range(count), rng.randint(1, count)))
        counts = [rng.choice([1, 1, num_drafts + 1, 7]) for _ in self.rows]
        self.num_known = torch.tensor([rng.randint(1, n) for n in counts])
        self.draft_bound = torch.tensor([rng.randint(0, num_drafts) for _ in counts])
        self.token_row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        self.token_offset = torch.cat([torch.arange(n) for n in counts])

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        return torch.randint(low, high, shape)

    def table(self) -> list[Tensor]:
        """Copies, for an implementation to change."""
        names = "token_ids num_tokens num_computed max_total drafts num_real tables"
        return [getattr(self, name).clone() for name in names.split()]


def check_assemble(at: Subject, step: Step) -> None:
    results = [
        kernels.assemble(
            *step.table(),
            rows=step.rows,
            num_known=step.num_known,
            draft_bound=step.draft_bound,
            token_row=step.token_row,
            token_offset=step.token_offset,
            block_size=BLOCK_SIZE,
        )
        for kernels in (at.kernels, at.oracle)
    ]
    for name, ours, expected in zip(results[0]._fields, *results, strict=True):
        assert torch.equal(ours, expected), f"assemble: {name}\n{ours}\n{expected}"


def check_commit(at: Subject, step: Step) -> None:
    num_rows, places = len(step.rows), step.num_drafts + 1
    emitted = step.integers(num_rows, places, high=VOCAB_SIZE)
    num_emitted = step.integers(num_rows, high=places + 1)
    arguments = {
        "rows": step.rows,
        "num_known": step.num_known,
        "num_tokens_left": step.integers(num_rows, high=3),
        "emitted": emitted,
        "num_emitted": num_emitted,
        "num_accepted": (num_emitted - 1).clamp(min=0),
    }
    ours, expected = step.table()[:3], step.table()[:3]
    at.kernels.commit(*ours, **arguments)
    at.oracle.commit(*expected, **arguments)
    is_kept = torch.arange(ours[0].shape[1]) < expected[1].unsqueeze(1)  # what lies behind is never read
    assert torch.equal(ours[0][is_kept], expected[0][is_kept]), "commit: token_ids"
    assert torch.equal(ours[1], expected[1]), "commit: num_tokens"
    assert torch.equal(ours[2], expected[2]), "commit: num_computed"


def check_drafts(at: Subject, step: Step) -> None:
    num_rows = len(step.rows)
    arguments = {
        "rows": step.rows,
        "proposed": step.integers(num_rows, step.num_drafts, low=-2, high=VOCAB_SIZE + 2),
        "has_sampled": torch.rand(num_rows) < 0.8,
        "num_tokens": step.num_tokens,
        "vocab_size": VOCAB_SIZE,
        "position_limit": 20,
    }
    ours, expected = ((step.drafts.clone(), step.num_real.clone()) for _ in range(2))
    at.kernels.put_drafts(*ours, **arguments)
    at.oracle.put_drafts(*expected, **arguments)
    assert torch.equal(ours[0], expected[0]), "put_drafts: drafts"
    assert torch.equal(ours[1], expected[1]), "put_drafts: num_drafts"


def check_chain_known(at: Subject, step: Step) -> None:
    token_ids, num_tokens, _, _, _, _, tables = step.table()
    arguments = {
        "rows": step.rows,
        "token_row": step.token_row,
        "positions": (num_tokens[step.rows[step.token_row]] - step.integers(len(step.token_row), low=-2, high=6)).clamp(
            min=-1
        ),
        "kv_lengths": step.integers(len(step.token_row), high=3),
        "first_index": step.rng.randint(0, 1),
        "block_size": BLOCK_SIZE,
    }
    results = [kernels.chain_known(token_ids, num_tokens, tables, **arguments) for kernels in (at.kernels, at.oracle)]
    for name, ours, expected in zip(results[1]._fields, *results, strict=True):
        assert torch.equal(ours, expected), f"chain_known: {name}\n{ours}\n{expected}"


def check_chain_drafted(at: Subject, step: Step) -> None:
    _, num_tokens, _, max_total, drafts, _, tables = step.table()
    arguments = {
        "rows": step.rows,
        "drafts": drafts[step.rows, 0] + step.integers(len(step.rows), low=-1, high=2) * VOCAB_SIZE,
        "num_emitted": step.integers(len(step.rows), high=3),
        "step": step.rng.randint(1, 5),
        "vocab_size": VOCAB_SIZE,
        "first_index": step.rng.randint(0, 1),
        "block_size": BLOCK_SIZE,
    }
    results = [kernels.chain_drafted(num_tokens, max_total, tables, **arguments) for kernels in (at.kernels, at.oracle)]
    for name, ours, expected in zip(results[1]._fields, *results, strict=True):
        assert torch.equal(ours, expected), f"chain_drafted: {name}\n{ours}\n{expected}"


def over_random_steps(check: Callable[[Subject, Step], None]) -> Callable[[Subject], None]:
    """The check of one function over several random steps; tensors are made on the subject's device."""

    def run(at: Subject) -> None:
        rng = random.Random(0)
        torch.manual_seed(0)
        with at.device:
            for i in range(NUM_STEPS):
                check(at, Step(rng, rng.choice([1, 5, 140 if i == 0 else 9]), rng.choice([1, 3, 5])))

    return run
