"""Layers with a recurrent state: a token's result is the same in a prompt, in chunks, behind refused drafts, and behind
a snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.attention.caches.delta_state import DeltaState, StateCache
from outrider.invariance.calls import Call
from outrider.invariance.comparison import difference
from outrider.invariance.form import Form, Limits, generator
from outrider.kernels.interface.state import CHUNK, StateRows

NAMES = ("gated_delta_inputs", "gated_delta_rule", "finish_gated_delta", "save_states", "load_states")

_NUM_ROWS = 5
_LENGTH = 83
_MOST_DRAFTS = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens of a row in one step; the first `num_right` are those of the row, others are drafts that are refused."""

    row: int
    start: int
    num_tokens: int
    num_drafts: int = 0
    num_right: int | None = None


def state_forms(call: Call, calls: Sequence[Call], limits: Limits) -> list[Form]:
    """Forms of the kernels of one layer: `call` is of `gated_delta_inputs`, `calls` are all that were recorded."""
    layer = _Layer(call, calls, num_drafts=min(_MOST_DRAFTS, max(3, limits.num_drafts)))
    rows = range(_NUM_ROWS)
    prompt = 18

    def chunks(size: int) -> str | None:
        steps = [[_Part(3, start, min(size, _LENGTH - start))] for start in range(0, _LENGTH, size)]
        return layer.compare(steps)

    def drafts(num_drafts: int, num_accepted: int) -> str | None:
        steps = [[_Part(row, 0, prompt + row) for row in rows]]
        places = [prompt + row for row in rows]
        while max(places) + 1 + num_drafts < _LENGTH:
            step = []
            for row in reversed(rows):
                right = 1 + min(num_drafts, num_accepted + row % 2)
                step.append(_Part(row, places[row], 1 + num_drafts, num_drafts, right))
                places[row] += right
            steps.append(step)
        return layer.compare(steps)

    def crowd() -> str | None:
        return layer.compare([[_Part(row, 0, _LENGTH - 3 * row) for row in reversed(rows)]])

    def beside() -> str | None:
        first = [_Part(0, 0, prompt), _Part(1, 0, 7)]
        steps = [first]
        for i in range(6):
            steps.append([_Part(1, 7 + 9 * i, 9), _Part(0, prompt + i, 1), _Part(2, 11 * i, 11)])
        return layer.compare(steps, num_padding=2)

    def alone() -> str | None:
        tokens = [[_Part(2, place, 1)] for place in range(prompt, 2 * CHUNK + 2)]
        return layer.compare([[_Part(2, 0, prompt)], *tokens])

    most = layer.num_drafts
    return [
        Form("a crowd of prompts", crowd),
        Form("chunks of 7", lambda: chunks(7)),
        Form("chunks beside decoding", beside),
        Form("drafts, some refused", lambda: drafts(3, 1)),
        Form("a request alone", alone),
        Form("behind a snapshot", layer.compare_snapshot),
        Form("chunks of 16", lambda: chunks(16), is_quick=False),
        Form("token by token", lambda: chunks(1), is_quick=False),
        Form("chunks of 30", lambda: chunks(30), is_quick=False),
        Form("all drafts refused", lambda: drafts(2, 0), is_quick=False),
        Form(f"{most} drafts", lambda: drafts(most, most - 1), is_quick=False),
    ]


class _Layer:
    """The weights of a layer, and the projections of every token of every row."""

    def __init__(self, call: Call, calls: Sequence[Call], *, num_drafts: int) -> None:
        self._inputs, self.num_drafts = call, num_drafts
        arguments = call.arguments
        self._rule, self._finish = (
            next(other for other in calls if other.name == name and other.kernels is call.kernels)
            for name in NAMES[1:3]
        )
        projected = arguments["projected"]
        self._spec = DeltaState(
            num_key_heads=arguments["num_key_heads"],
            num_value_heads=arguments["a_log"].shape[0],
            key_size=arguments["key_size"],
            value_size=arguments["value_size"],
            dtype=projected.dtype,
        )
        shape = (_NUM_ROWS, _LENGTH, projected.shape[1])
        self._projected = torch.randn(shape, generator=generator(call)).to(projected)
        self._kept: list[Tensor] | None = None
        self._begin()

    def _begin(self) -> None:
        """All rows at their beginning; what is stored is NaN."""
        device = self._projected.device
        self._states = StateCache([self._spec], _NUM_ROWS + 1, num_drafts=self.num_drafts, device=device)
        self._cache = self._states[0]
        for name in ("state", "keys", "deltas", "log_decays", "inputs"):
            getattr(self._cache, name).fill_(float("nan"))
        self._computed, self._lengths, self._known = (
            torch.zeros(_NUM_ROWS + 1, dtype=torch.int64, device=device) for _ in range(3)
        )

    def _step(self, parts: Sequence[_Part], *, num_padding: int = 0) -> list[list[Tensor]]:
        """One step: for each part, the results of the three kernels for its right tokens."""
        device, cache = self._projected.device, self._cache
        counts = [part.num_tokens for part in parts]
        tokens = []
        for part in parts:
            right = part.num_tokens if part.num_right is None else part.num_right
            wrong = self._projected.new_full((part.num_tokens - right, self._projected.shape[2]), 3.0)
            tokens += [self._projected[part.row, part.start : part.start + right], wrong]
        padding = self._projected.new_full((num_padding, self._projected.shape[2]), 7.0)
        projected = torch.cat([*tokens, padding])
        rows, num_drafts = (
            torch.tensor(values, device=device)
            for values in ([part.row for part in parts], [part.num_drafts for part in parts])
        )
        found = self._inputs.kernels.state_rows(
            self._computed,
            self._lengths,
            self._known,
            rows=rows,
            num_drafts=num_drafts,
            num_tokens_left=torch.ones_like(rows),
            num_known=torch.tensor(counts, device=device) - num_drafts,
        )
        padded = [*counts[:-1], counts[-1] + num_padding]
        row_counts = torch.tensor(padded, device=device)
        at = StateRows(
            rows,
            *found,
            row_starts=row_counts.cumsum(0) - row_counts,
            token_row=torch.arange(len(parts), device=device).repeat_interleave(row_counts),
            row_counts=tuple(padded),
            most_open=self._states.most_open,
        )
        made = self._inputs.run(projected=projected, inputs=cache.inputs, at=at)
        q, k, v, log_decay, beta = made
        stores = {name: getattr(cache, name) for name in ("keys", "log_decays")}
        out = self._rule.run(
            q=q, k=k, v=v, log_decay=log_decay, beta=beta, state=cache.state, deltas=cache.deltas, at=at, **stores
        )  # fmt: skip
        gated = self._finish.run(
            out=out, projected=projected, k=k, log_decay=log_decay, inputs=cache.inputs, at=at, **stores
        )  # fmt: skip
        self._lengths[rows], self._known[rows] = at.targets, at.known
        starts, results = [sum(padded[:i]) for i in range(len(parts))], []
        for part, start in zip(parts, starts, strict=True):
            right = part.num_tokens if part.num_right is None else part.num_right
            self._computed[part.row] = part.start + right
            results.append([x[start : start + right] for x in (*made, out, gated)])
        return results

    @property
    def _whole(self) -> list[list[Tensor]]:
        """Each row alone, in one piece."""
        if self._kept is None:
            self._begin()
            self._kept = [self._step([_Part(row, 0, _LENGTH)])[0] for row in range(_NUM_ROWS)]  # type: ignore[misc]
        return self._kept  # type: ignore[return-value]

    def compare(self, steps: Sequence[Sequence[_Part]], *, num_padding: int = 0) -> str | None:
        whole = self._whole
        self._begin()
        for step in steps:
            for part, ours in zip(step, self._step(step, num_padding=num_padding), strict=True):
                if said := self._differs(part, ours, whole[part.row]):
                    return said
        return None

    def _differs(self, part: _Part, ours: Sequence[Tensor], whole: Sequence[Tensor]) -> str | None:
        wanted = [x[part.start : part.start + len(ours[0])] for x in whole]
        for name, first, end in (("inputs", 0, 5), ("rule", 5, 6), ("finish", 6, 7)):
            if said := difference(ours[first:end], wanted[first:end]):
                return f"{name}, {part.num_tokens} tokens from {part.start}: {said}"
        return None

    def compare_snapshot(self) -> str | None:
        """A row that starts from the snapshot of another goes on with its bits."""
        whole = self._whole
        self._begin()
        self._states.allocate_snapshots(2)
        length, end = CHUNK, CHUNK + 9
        self._step([_Part(1, 0, length + 2)])

        def one(number: int) -> Tensor:
            return torch.tensor([number], device=self._projected.device)

        saved = {"rows": one(1), "slots": one(1), "lengths": one(length)}
        kernels = self._inputs.kernels
        self._states.save(kernels, sources=self._lengths[one(1)], **saved)
        self._states.load(kernels, **saved | {"rows": one(4)})
        for positions in (self._computed, self._lengths, self._known):
            positions[4] = length
        self._projected[4, length:end], kept = (
            self._projected[1, length:end].clone(),
            self._projected[4, length:end].clone(),
        )
        try:
            part = _Part(4, length, end - length)
            (ours,) = self._step([part])
        finally:
            self._projected[4, length:end] = kept
        return self._differs(part, ours, whole[1])
