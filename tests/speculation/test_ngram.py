"""The n-gram drafter against an obvious version: lists and loops."""

import random

import torch

from outrider.speculation.drafters.ngram import lookup


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
