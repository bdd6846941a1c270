"""The n-gram drafter against an obvious version: lists and loops."""

import random
from types import SimpleNamespace

import torch

from outrider.speculation.drafters.ngram import Drafter, Options, lookup


def _obvious(tokens: list[int], sizes: range, num_drafts: int) -> list[int]:
    for size in sizes:
        suffix = tokens[-size:]
        starts = [i for i in range(len(tokens) - size) if len(tokens) > size and tokens[i : i + size] == suffix]
        if starts:
            full = [i for i in starts if i + size + num_drafts <= len(tokens)]
            begin = max(full or starts) + size
            return tokens[begin : begin + num_drafts]
    return []


def test_lookup_equals_the_obvious_version():
    rng = random.Random(0)
    for _ in range(300):
        vocab = rng.choice([2, 3, 8, 40])
        rows = [[rng.randrange(vocab) for _ in range(rng.randint(1, 30))] for _ in range(rng.randint(1, 6))]
        low = rng.randint(1, 3)
        sizes = range(rng.randint(low, 5), low - 1, -1)
        num_drafts = rng.randint(1, 6)
        width = max(map(len, rows)) + rng.randint(0, 4)
        table = torch.tensor([row + [rng.randrange(vocab) for _ in range(width - len(row))] for row in rows])
        drafts = lookup(table, torch.tensor([len(row) for row in rows]), sizes=sizes, num_drafts=num_drafts)
        for row, got in zip(rows, drafts.tolist(), strict=True):
            wanted = _obvious(row, sizes, num_drafts)
            assert got == wanted + [-1] * (num_drafts - len(wanted)), (row, sizes, num_drafts)


def test_the_longest_suffix_is_looked_up_first():
    """1 2 3 was followed by 4, and later 2 3 alone by 9: the longer match wins, unless it is longer than allowed."""
    tokens = torch.tensor([[1, 2, 3, 4, 5, 2, 3, 9, 9, 1, 2, 3]])
    batch = SimpleNamespace(num_proposals=1, num_rows=1, rows=torch.tensor([0]), length_bound=12)
    for options, wanted in ((Options(), 4), (Options(prompt_lookup_max=2), 9)):
        config = SimpleNamespace(num_speculative_tokens=1, max_model_len=None, quantization=None)
        drafter = Drafter(SimpleNamespace(config=config, options=options, max_model_len=64))
        drafter.attach(SimpleNamespace(token_ids=tokens, num_tokens=torch.tensor([12])), None)
        assert drafter.propose(batch, hidden=None, verified=None).tolist() == [[wanted]]
