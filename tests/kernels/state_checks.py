"""Conformance checks of attention and of layers with a state: against their definitions, token by token."""

import torch

from outrider.attention.base import AttentionBackend
from outrider.attention.caches.paged_kv import PagedKV
from tests.attention.backend_check import check_formula, check_invariance
from tests.kernels.gated_delta_steps import Layer, Table, recurrent
from tests.kernels.subject import Subject

HEADS = {"num_key_heads": 1, "num_value_heads": 2, "key_size": 32, "value_size": 32}
PROMPT, LENGTH = 18, 25
LIMITS = {torch.float32: 2e-4, torch.bfloat16: 2e-2}
"""Largest relative RMS error of a layer's outputs."""


class _Plain(AttentionBackend):
    """The kernels, and nothing else."""

    name, is_exact = "plain", True

    @classmethod
    def refuses(cls, spec, platform):
        return None


def check_attention(at: Subject) -> None:
    spec = PagedKV(num_kv_heads=2, head_dim=64, value_dim=64, dtype=at.dtype)
    backend = _Plain(at.kernels)
    check_formula(backend, spec, at.device)
    check_invariance(backend, spec, at.device)


def _layer(at: Subject) -> Layer:
    return Layer(1, at.kernels, device=str(at.device), dtype=at.dtype, heads=HEADS)


def check_states(at: Subject) -> None:
    """A prompt in two chunks, then steps with a refused draft."""
    layer = _layer(at)
    table, row, outs = Table(layer), 1, []
    for start, stop, num_drafts in ((0, 7, 0), (7, PROMPT, 0), (PROMPT, 20, 1), (20, 22, 1), (22, LENGTH, 0)):
        tokens = layer.projected[row, start : stop + num_drafts].clone()
        tokens[stop - start :] = 3.0
        (out,) = table.step([(row, tokens, num_drafts)], num_padding=start % 2)
        outs.append(out[: stop - start])
        table.computed[row] = stop
    wanted, ours = recurrent(layer, layer.projected[row, :LENGTH]), torch.cat(outs)
    error = float((ours.double() - wanted).norm() / wanted.norm())
    assert error <= LIMITS[at.dtype], f"relative RMS error {error:.2e}"


def check_state_rows(at: Subject) -> None:
    """Prompt chunks move the state to their end; decode rows over what was known a step ago; padding not at all."""
    cases = [  # computed, state at, known before, tokens, drafts, tokens left -> count, target, known
        (0, 0, 0, 40, 0, 5, 40, 32, 40), (40, 32, 40, 1, 3, 5, 4, 32, 41), (50, 32, 49, 1, 0, 5, 1, 48, 51),
        (47, 32, 31, 1, 2, 5, 3, 32, 48), (47, 32, 48, 1, 2, 0, 0, 32, 48),
    ]  # fmt: skip
    columns = [torch.tensor(column, device=at.device) for column in zip(*cases, strict=True)]
    computed, lengths, known_before, num_known, num_drafts, num_left, counts, targets, known = columns
    order = torch.tensor([3, 0, 4, 1, 2], device=at.device)
    found = at.kernels.state_rows(
        computed, lengths, known_before, rows=order, num_known=num_known[order], num_drafts=num_drafts[order],
        num_tokens_left=num_left[order],
    )  # fmt: skip
    wanted = (computed, counts, lengths, targets, known)
    for name, ours, column in zip(("starts", "counts", "sources", "targets", "known"), found, wanted, strict=True):
        at.same(name, ours, column[order])


def check_snapshots(at: Subject) -> None:
    """A row that starts from a snapshot goes on with the bits of the row that the snapshot is of."""
    layer = _layer(at)
    table = Table(layer)
    table.states.allocate_snapshots(2)
    table.step([(1, layer.projected[1, :PROMPT], 0)])
    table.computed[1] = PROMPT

    def one(number: int) -> torch.Tensor:
        return torch.tensor([number], device=at.device)

    saved = {"rows": one(1), "slots": one(1), "lengths": one(16)}
    table.states.save(layer.kernels, sources=table.lengths[one(1)], **saved)
    table.states.load(layer.kernels, **saved | {"rows": one(3)})
    table.computed[3] = table.lengths[3] = table.known[3] = 16
    (wanted,) = table.step([(1, layer.projected[1, PROMPT:LENGTH], 0)])
    (ours,) = table.step([(3, layer.projected[1, 16:LENGTH], 0)])
    at.same("tokens behind a snapshot", ours[PROMPT - 16 :], wanted)
