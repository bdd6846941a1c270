"""A table of requests for Gated DeltaNet, driven as the engine drives its own: any rows, prompt chunks, refused drafts.

Any implementation, device and dtype; the CPU's tests, the interpreter's and the GPU's share it.
"""

import random

import torch

from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.kernels import Kernels
from outrider.kernels.interface.state import StateRows

NUM_ROWS = 5
HEADS = {"num_key_heads": 2, "num_value_heads": 6, "key_size": 16, "value_size": 32}
MOST_DRAFTS = 16
LENGTH = 83


class Layer:
    """The weights of one layer, and the projections of every token of every row."""

    def __init__(
        self,
        seed: int,
        kernels: Kernels,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        heads: dict[str, int] = HEADS,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random_of(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(device, of)

        self.kernels, self.heads = kernels, heads
        self.spec = DeltaState(dtype=dtype, **heads)
        num_heads = heads["num_value_heads"]
        self.conv = random_of(self.spec.num_channels, 1, 4)
        self.a_log, self.dt_bias = (random_of(num_heads, of=torch.float32) for _ in range(2))
        self.norm = random_of(heads["value_size"])
        width = self.spec.num_channels + num_heads * (heads["value_size"] + 2)
        self.projected = random_of(NUM_ROWS, LENGTH + MOST_DRAFTS, width)


class Table:
    """States of some rows, filled with NaN, and their positions."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.device = layer, layer.projected.device
        self.states = StateCache([layer.spec], NUM_ROWS + 1, num_drafts=MOST_DRAFTS, device=self.device)
        self.cache = self.states[0]
        for name in ("state", "keys", "deltas", "log_decays", "inputs"):
            getattr(self.cache, name).fill_(float("nan"))
        self.computed, self.lengths, self.known = (
            torch.zeros(NUM_ROWS + 1, dtype=torch.int64, device=self.device) for _ in range(3)
        )

    def _numbers(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def step(
        self, parts: list[tuple[int, torch.Tensor, int]], *, num_padding: int = 0, num_apart: int = 0
    ) -> list[torch.Tensor]:
        """(row, projections of its tokens, how many of the last are drafts) -> outputs of each.

        `num_apart`: columns of NaN between the projections of two tokens."""
        rows = self._numbers([row for row, _, _ in parts])
        counts = [len(tokens) for _, tokens, _ in parts]
        counts[-1] += num_padding
        padding = self.layer.projected.new_full((num_padding, parts[0][1].shape[1]), 7.0)
        projected = torch.cat([*(tokens for _, tokens, _ in parts), padding])
        wide = torch.nn.functional.pad(projected, (0, num_apart), value=float("nan"))
        projected = wide[:, : projected.shape[1]]
        num_drafts = self._numbers([drafts for _, _, drafts in parts])
        layer, cache, kernels = self.layer, self.cache, self.layer.kernels
        found = kernels.state_rows(
            self.computed, self.lengths, self.known, rows=rows, num_drafts=num_drafts,
            num_tokens_left=torch.ones_like(rows),
            num_known=self._numbers([len(tokens) for _, tokens, _ in parts]) - num_drafts,
        )  # fmt: skip
        row_counts = self._numbers(counts)
        at = StateRows(
            rows, *found, row_starts=row_counts.cumsum(0) - row_counts, row_counts=tuple(counts),
            token_row=torch.arange(len(parts), device=self.device).repeat_interleave(row_counts),
            most_open=self.states.most_open,
        )  # fmt: skip
        q, k, v, log_decay, beta = kernels.gated_delta_inputs(
            projected, cache.inputs, layer.conv, layer.a_log, layer.dt_bias, at,
            num_key_heads=layer.heads["num_key_heads"], key_size=layer.heads["key_size"],
            value_size=layer.heads["value_size"],
        )  # fmt: skip
        out = kernels.gated_delta_rule(
            q, k, v, log_decay, beta, cache.state, cache.keys, cache.deltas, cache.log_decays, at
        )
        gated = kernels.finish_gated_delta(
            out, projected, k, log_decay, layer.norm, 1e-6, cache.inputs, cache.keys, cache.log_decays, at
        )
        self.lengths[rows], self.known[rows] = at.targets, at.known
        starts = at.row_starts.tolist()
        return [gated[start : start + len(tokens)] for start, (_, tokens, _) in zip(starts, parts, strict=True)]


def recurrence(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, token by token: q, k [T, Vh, dk], v [T, Vh, dv], decay and β [T, Vh] -> [T, Vh, dv], and the last
    state [Vh, dk, dv]."""
    state = v.new_zeros(v.shape[1], k.shape[2], v.shape[2])
    outs = []
    for t in range(len(v)):
        state = state * decay[t][:, None, None]
        delta = beta[t][:, None] * (v[t] - torch.einsum("hkv,hk->hv", state, k[t]))
        state = state + k[t][:, :, None] * delta[:, None]
        outs.append(torch.einsum("hkv,hk->hv", state, q[t]))
    return torch.stack(outs), state


def recurrent(layer: Layer, projected: torch.Tensor) -> torch.Tensor:
    """The layer by its definition in fp64, token by token: [T, width] -> [T, Vh dv]."""
    heads, channels = layer.heads, layer.spec.num_channels
    num_keys, num_values = heads["num_key_heads"], heads["num_value_heads"]
    key_size, value_size = heads["key_size"], heads["value_size"]
    keys, values = num_keys * key_size, num_values * value_size
    u, z, b, a = projected.double().split([channels, values, num_values, num_values], dim=1)
    padded = torch.cat([u.new_zeros(3, channels), u])
    y = torch.stack([padded[tap : tap + len(u)] * layer.conv[:, 0, tap].double() for tap in range(4)]).sum(0)
    q, k, v = torch.nn.functional.silu(y).split([keys, keys, values], dim=1)
    q, k, v = q.view(-1, num_keys, key_size), k.view(-1, num_keys, key_size), v.view(-1, num_values, value_size)
    q, k = (x / (x.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    q, k = (x.repeat_interleave(num_values // num_keys, dim=1) for x in (q * key_size**-0.5, k))
    beta = b.sigmoid()
    decay = (-layer.a_log.double().exp() * torch.nn.functional.softplus(a + layer.dt_bias.double())).exp()
    out, _ = recurrence(q, k, v, decay, beta)
    normed = out * (out.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * layer.norm.double()
    return (normed * torch.nn.functional.silu(z).view_as(out)).flatten(1)


def check_chunks(layer: Layer, whole: list[torch.Tensor], size: int) -> None:
    """A prompt in chunks of `size`, padded now and then: tokens must have the bits of `whole`."""
    table = Table(layer)
    for start in range(0, LENGTH, size):
        stop = min(start + size, LENGTH)
        (out,) = table.step([(3, layer.projected[3, start:stop], 0)], num_padding=start % 3)
        table.computed[3] = stop
        assert torch.equal(out, whole[3][start:stop])


def check_mixed_steps(layer: Layer, whole: list[torch.Tensor], most_drafts: int) -> None:
    """`drive`, until every accepted count has occurred."""
    rng = random.Random(most_drafts)
    accepted_counts: set[int] = set()
    while len(accepted_counts) <= most_drafts:
        drive(layer, whole, rng, most_drafts, accepted_counts)


def drive(
    layer: Layer, whole: list[torch.Tensor], rng: random.Random, most_drafts: int, accepted_counts: set[int]
) -> None:
    """Prompt chunks and verify rows in random order, wrong drafts garbage: tokens must have the bits of `whole`."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
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
            tokens[known + accepted :] = torch.randn(tokens[known + accepted :].shape, generator=generator).to(tokens)
            parts.append((row, tokens, drafts))
            plans.append((row, start, start + known + accepted))
        outs = table.step(parts, num_padding=rng.randint(0, 2))
        for (row, start, stop), out in zip(plans, outs, strict=True):
            assert torch.equal(out[: stop - start], whole[row][start:stop]), (row, start, stop)
            table.computed[row] = stop
