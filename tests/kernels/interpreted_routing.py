"""The router's Triton kernels against what their results must say, on the current device.

A program, not a test file: the interpreter is chosen by an environment variable before Triton is imported.
`test_reference_experts.py` runs it. Its last line says what failed. On a GPU `check_routing` is called as it is.
"""

import json
import random
from collections import Counter

import torch
import triton
from torch import Tensor

from outrider.kernels.reference.routing import route as reference
from outrider.kernels.triton import routing

CASES = [
    (1, 128, 8),
    (8, 128, 8),
    (9, 128, 8),
    (40, 128, 8),
    (150, 32, 4),
    (300, 6, 1),
    (5, 3, 3),
    (5000, 5, 5),
    (1, 40, 20),
]
"""Tokens, experts, experts of a token."""

_INTERPRETED = [(1, 128, 8), (1, 40, 20), (5, 3, 3), (9, 32, 4), (150, 3, 1)]
"""Cases that are quick enough without a GPU."""


def make_logits(num_tokens: int, num_experts: int, kind: str) -> Tensor:
    logits = torch.randn(num_tokens, num_experts)
    if kind == "ties":
        logits = torch.randint(-1, 2, (num_tokens, num_experts)).float() * random.choice([0.0, -0.0, 1.0])
    elif kind == "one expert":
        logits[:, num_experts // 2] += 100.0
    elif kind == "nan":
        logits[::3] = float("nan")
    return logits


def check_choice(logits: Tensor, made: routing.Routing, top_k: int, *, is_normalized: bool) -> None:
    expected = reference(logits.cpu(), top_k=top_k, is_normalized=is_normalized)
    assert torch.equal(made.ids.cpu(), expected.ids), f"ids\n{made.ids}\n{expected.ids}"
    torch.testing.assert_close(made.weights.cpu(), expected.weights, rtol=2e-6, atol=1e-30, equal_nan=True)


def rows_of(made: routing.Routing) -> Tensor:
    """Row of each (token, slot) that was gathered."""
    blocks = torch.arange(made.ids.shape[0]) // routing.BLOCK
    return made.bases.cpu()[blocks.unsqueeze(1), made.ids.cpu().long()] + made.ranks.cpu()


def check_records(made: routing.Routing) -> None:
    """Every expert that was chosen has records; a row belongs to one of them only, and all that chose it are there."""
    if made.is_lone:
        assert len(made.records) == 0, "lists that nobody reads"
        return
    records = made.records[: made.num_records.item()].tolist()
    ids = made.ids.cpu()
    counts, records_of = Counter(ids.flatten().tolist()), Counter(record[0] for record in records)
    expert_of_row = {}
    for expert, first, count, _ in records:
        assert 0 < count <= made.tile
        for row in range(first, first + count):
            assert row < made.num_rows and row not in expert_of_row, f"row {row} is in two records"
            expert_of_row[row] = expert
    if made.is_gathered:
        rows = rows_of(made)
        assert rows.unique().numel() == rows.numel() == len(expert_of_row), "not a row for each pair"
        assert [expert_of_row[row] for row in rows.flatten().tolist()] == ids.flatten().tolist(), "rows of others"
        assert records_of == {expert: triton.cdiv(count, made.tile) for expert, count in counts.items()}
    else:
        assert records_of == dict.fromkeys(counts, 1)
        for i, (expert, _, count, _) in enumerate(records):
            assert count == len(ids), "a record lacks tokens"
            expected = [row.index(expert) if expert in row else -1 for row in ids.tolist()]
            assert made.slots[i].tolist() == expected + [-1] * (routing.BLOCK - count), f"slots of record {i}"


def check_gather(made: routing.Routing, logits: Tensor) -> None:
    x = torch.randn(made.ids.shape[0], 50, device=logits.device)[:, 3:43]
    if made.is_gathered:
        gathered = routing.gather(x, made)
        for slot in range(made.ids.shape[1]):
            assert torch.equal(gathered[rows_of(made)[:, slot].to(x.device).long()], x), f"slot {slot}"


def check_combine(made: routing.Routing, logits: Tensor) -> None:
    if not made.is_gathered:
        return
    y = torch.randn(made.num_rows, 40, device=logits.device)
    out = routing.combine(y, made, num_tokens=made.ids.shape[0])
    expected = torch.zeros_like(out)
    for slot in range(made.ids.shape[1]):
        product = made.weights[:, slot : slot + 1].double() * y[rows_of(made)[:, slot].to(y.device).long()].double()
        expected = (product + expected.double()).float()  # one rounding, as in fma
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


def check_routing(on: torch.device, cases: list[tuple[int, int, int]]) -> dict[str, str]:
    """Failures, by check."""
    failed = {}
    random.seed(0)
    torch.manual_seed(0)
    for num_tokens, num_experts, top_k in cases:
        for kind in ("random", "ties", "one expert", "nan"):
            is_normalized = random.random() < 0.7
            logits = make_logits(num_tokens, num_experts, kind).to(on)
            made = routing.route(logits, top_k=top_k, is_normalized=is_normalized)
            checks = {
                "choice": lambda: check_choice(logits, made, top_k, is_normalized=is_normalized),  # noqa: B023
                "records": lambda: check_records(made),  # noqa: B023
                "gather": lambda: check_gather(made, logits),  # noqa: B023
                "combine": lambda: check_combine(made, logits),  # noqa: B023
            }
            for name, check in checks.items():
                try:
                    check()
                except AssertionError as error:
                    failed[name] = f"{num_tokens} tokens, {top_k} of {num_experts} experts, {kind}: {error}"
    return failed


if __name__ == "__main__":
    print(json.dumps(check_routing(torch.device("cpu"), _INTERPRETED)))
