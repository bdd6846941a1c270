"""Gated DeltaNet: the chunk form against the recurrence, and a token's bits however its tokens came.

A little table is driven as the engine drives its own: rows of any order, prompt chunks, drafts that are refused.
"""

import random

import pytest
import torch

from outrider.attention.state import StateCache, StateSpec
from outrider.kernels.reference.gated_delta import (
    CHUNK,
    StateRows,
    finish_gated_delta,
    gated_delta_inputs,
    gated_delta_rule,
    state_rows,
)

NUM_ROWS = 5
HEADS = {"num_key_heads": 2, "num_value_heads": 6, "key_size": 16, "value_size": 32}
MOST_DRAFTS = 16
LENGTH = 83


class Layer:
    """The weights of one layer, and the projections of every token of every row."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.spec = StateSpec(num_layers=1, dtype=torch.float32, num_drafts=MOST_DRAFTS, **HEADS)
        width = self.spec.num_channels + HEADS["num_value_heads"] * (HEADS["value_size"] + 2)
        self.conv = torch.randn(self.spec.num_channels, 1, 4, generator=generator)
        self.a_log = torch.randn(HEADS["num_value_heads"], generator=generator)
        self.dt_bias = torch.randn(HEADS["num_value_heads"], generator=generator)
        self.norm = torch.randn(HEADS["value_size"], generator=generator)
        self.projected = torch.randn(NUM_ROWS, LENGTH + MOST_DRAFTS, width, generator=generator)


class Table:
    """States of some rows, filled with NaN, and where they stand."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.cache = StateCache(layer.spec, NUM_ROWS + 1, device=torch.device("cpu"))[0]
        for name in ("state", "keys", "deltas", "log_decays", "inputs"):
            getattr(self.cache, name).fill_(float("nan"))
        self.computed, self.lengths, self.known = (torch.zeros(NUM_ROWS + 1, dtype=torch.int64) for _ in range(3))

    def step(self, parts: list[tuple[int, torch.Tensor, int]], *, num_padding: int = 0) -> list[torch.Tensor]:
        """(row, projections of its tokens, how many of the last are drafts) -> outputs of each."""
        rows = torch.tensor([row for row, _, _ in parts])
        counts = [len(tokens) for _, tokens, _ in parts]
        counts[-1] += num_padding
        projected = torch.cat(
            [*(tokens for _, tokens, _ in parts), torch.full((num_padding, parts[0][1].shape[1]), 7.0)]
        )
        num_drafts = torch.tensor([drafts for _, _, drafts in parts])
        found = state_rows(
            self.computed, self.lengths, self.known, rows=rows, num_drafts=num_drafts, room=torch.ones_like(rows),
            num_known=torch.tensor([len(tokens) for _, tokens, _ in parts]) - num_drafts,
        )  # fmt: skip
        row_counts = torch.tensor(counts)
        at = StateRows(
            rows, *found, row_starts=row_counts.cumsum(0) - row_counts, row_counts=tuple(counts),
            token_row=torch.arange(len(parts)).repeat_interleave(row_counts), most_open=self.layer.spec.most_open,
        )  # fmt: skip
        layer, cache = self.layer, self.cache
        q, k, v, log_decay, beta = gated_delta_inputs(
            projected, cache.inputs, layer.conv, layer.a_log, layer.dt_bias, at,
            num_key_heads=HEADS["num_key_heads"], key_size=HEADS["key_size"], value_size=HEADS["value_size"],
        )  # fmt: skip
        out = gated_delta_rule(q, k, v, log_decay, beta, cache.state, cache.keys, cache.deltas, cache.log_decays, at)
        gated = finish_gated_delta(
            out, projected, k, log_decay, layer.norm, 1e-6, cache.inputs, cache.keys, cache.log_decays, at
        )
        self.lengths[rows], self.known[rows] = at.targets, at.known
        starts = at.row_starts.tolist()
        return [gated[start : start + len(tokens)] for start, (_, tokens, _) in zip(starts, parts, strict=True)]


@pytest.fixture(scope="module")
def layer():
    return Layer(1)


@pytest.fixture(scope="module")
def whole(layer):
    """Each row's outputs, all its tokens in one step, alone."""
    return [Table(layer).step([(row, layer.projected[row, :LENGTH], 0)])[0] for row in range(NUM_ROWS)]


def recurrent(layer: Layer, projected: torch.Tensor) -> torch.Tensor:
    """The layer by its definition in fp64, token by token."""
    keys, values = 2 * 16, 6 * 32
    u, z, b, a = projected.double().split([2 * keys + values, values, 6, 6], dim=1)
    padded = torch.cat([torch.zeros(3, u.shape[1], dtype=torch.float64), u])
    y = sum(padded[tap : tap + len(u)] * layer.conv[:, 0, tap].double() for tap in range(4))
    q, k, v = torch.nn.functional.silu(y).split([keys, keys, values], dim=1)
    q, k, v = q.view(-1, 2, 16), k.view(-1, 2, 16), v.view(-1, 6, 32)
    q, k = (x / (x.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    q, k = (x.repeat_interleave(3, dim=1) for x in (q * 16**-0.5, k))
    beta = b.sigmoid()
    decay = (-layer.a_log.double().exp() * torch.nn.functional.softplus(a + layer.dt_bias.double())).exp()
    state = torch.zeros(6, 16, 32, dtype=torch.float64)
    outs = []
    for t in range(len(u)):
        state = state * decay[t][:, None, None]
        delta = beta[t][:, None] * (v[t] - torch.einsum("hkv,hk->hv", state, k[t]))
        state = state + k[t][:, :, None] * delta[:, None]
        outs.append(torch.einsum("hkv,hk->hv", state, q[t]))
    out = torch.stack(outs)
    normed = out * (out.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * layer.norm.double()
    return (normed * torch.nn.functional.silu(z).view_as(out)).flatten(1)


def test_the_chunk_form_is_the_recurrence(layer, whole):
    for row in range(NUM_ROWS):
        wanted = recurrent(layer, layer.projected[row, :LENGTH])
        assert (whole[row] - wanted).norm() < 2e-6 * wanted.norm()


@pytest.mark.parametrize("size", [1, 2, 5, CHUNK, CHUNK + 1, 40])
def test_chunk_sizes_give_the_same_bits(layer, whole, size):
    table = Table(layer)
    for start in range(0, LENGTH, size):
        stop = min(start + size, LENGTH)
        (out,) = table.step([(3, layer.projected[3, start:stop], 0)], num_padding=start % 3)
        table.computed[3] = stop
        assert torch.equal(out, whole[3][start:stop])


@pytest.mark.parametrize("most_drafts", [0, 1, 3, 7, 8, MOST_DRAFTS])
def test_mixed_steps_with_refused_drafts_give_the_same_bits(layer, whole, most_drafts):
    """Prompt chunks and verify rows in random order; every accepted count occurs, wrong drafts are garbage."""
    rng = random.Random(most_drafts)
    generator = torch.Generator().manual_seed(most_drafts)
    accepted_counts: set[int] = set()
    while len(accepted_counts) <= most_drafts:
        _drive(layer, whole, rng, generator, most_drafts, accepted_counts)


def _drive(layer, whole, rng, generator, most_drafts, accepted_counts):
    table, in_prompt = Table(layer), dict.fromkeys(range(NUM_ROWS), True)
    while rows := [row for row in range(NUM_ROWS) if table.computed[row] < LENGTH]:
        chosen = rng.sample(rows, rng.randint(1, len(rows)))
        parts, plans = [], []
        for row in chosen:
            start = int(table.computed[row])
            tokens = layer.projected[row, start:]
            if in_prompt[row]:
                known = rng.choice((1, rng.randint(2, 30)))
                known, drafts, accepted = min(known, LENGTH - start), 0, 0
                in_prompt[row] = start < 20
            else:
                known, drafts = 1, rng.randint(0, most_drafts)
                accepted = rng.randint(0, min(drafts, LENGTH - start - 1))
                accepted_counts.add(accepted)
            tokens = tokens[: known + drafts].clone()
            tokens[known + accepted :] = torch.randn(tokens[known + accepted :].shape, generator=generator)
            parts.append((row, tokens, drafts))
            plans.append((row, start, start + known + accepted))
        outs = table.step(parts, num_padding=rng.randint(0, 2))
        for (row, start, stop), out in zip(plans, outs, strict=True):
            assert torch.equal(out[: stop - start], whole[row][start:stop]), (row, start, stop)
            table.computed[row] = stop


def test_a_decode_row_leaves_its_state_behind_what_a_stop_may_cut(layer):
    """The state stands at tokens that were known when the row's last step began, whatever was accepted since."""
    table = Table(layer)
    table.step([(0, layer.projected[0, :14], 0)])
    table.computed[0] = 14
    table.step([(0, layer.projected[0, 14:24], 9)])  # known: 15
    table.computed[0] = 24  # all nine drafts accepted; a stop may cut at 16
    table.step([(0, layer.projected[0, 24:25], 0)])
    assert table.lengths[0] == 0
    table.computed[0] = 25
    table.step([(0, layer.projected[0, 25:26], 0)])
    assert table.lengths[0] == CHUNK


def test_a_row_starts_from_nothing_whatever_its_last_owner_left(layer, whole):
    table = Table(layer)
    table.step([(1, layer.projected[4, :40], 0)])
    table.lengths[1] = table.known[1] = 0
    (out,) = table.step([(1, layer.projected[1, :LENGTH], 0)])
    assert torch.equal(out, whole[1])
