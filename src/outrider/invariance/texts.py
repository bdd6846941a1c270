"""Attention inside texts, and sums over the tokens of a text: a text has the same result in every pass."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from outrider.invariance.calls import Call
from outrider.invariance.comparison import difference
from outrider.invariance.form import Form, Limits, generator

_LENGTHS = (7, 64, 1, 33, 130, 300)


def text_forms(call: Call, limits: Limits) -> list[Form]:
    """Forms of `text_attention`."""
    case = _TextCase(call, limits)
    order = list(range(len(case.lengths)))
    return [
        Form("all texts", lambda: case.compare(order)),
        Form("another order", lambda: case.compare(order[::-1])),
        Form("padding", lambda: case.compare(order[:3], padding=5)),
        Form("NaN around", lambda: case.compare(order, kept=2)),
        *(Form(f"two texts from {i}", lambda i=i: case.compare(order[i : i + 2]), is_quick=False) for i in order[:-1]),  # type: ignore[misc]
    ]


class _TextCase:
    def __init__(self, call: Call, limits: Limits) -> None:
        self._call, random = call, generator(call)
        like = call.arguments["q"]
        self.lengths = [min(length, limits.max_length) for length in _LENGTHS]
        self._inputs = [
            {name: torch.randn((n, *like.shape[1:]), generator=random).to(like) for name in ("q", "k", "v")}
            for n in self.lengths
        ]
        self._device = like.device

    def _attend(self, texts: Sequence[int], *, padding: int = 0, kept: int | None = None) -> list[Tensor]:
        """One pass. kept: all other texts are NaN."""
        parts = [{name: x if kept in (None, text) else x * float("nan") for name, x in self._inputs[text].items()}
                 for text in texts]  # fmt: skip
        counts = [self.lengths[text] for text in texts]
        lengths = [position + 1 for count in counts for position in range(count)]
        inputs = {name: torch.cat([part[name] for part in parts]) for name in ("q", "k", "v")}
        inputs = {name: torch.cat([x, x.new_full((padding, *x.shape[1:]), float("nan"))]) for name, x in inputs.items()}
        plan = self._call.kernels.plan_texts(
            torch.tensor(lengths + [0] * padding, device=self._device), (*counts[:-1], counts[-1] + padding)
        )
        return list(self._call.run(**inputs, plan=plan)[: len(lengths)].split(counts))

    @cached_property
    def _alone(self) -> list[Tensor]:
        return [self._attend([text])[0] for text in range(len(self.lengths))]

    def compare(self, texts: Sequence[int], *, padding: int = 0, kept: int | None = None) -> str | None:
        for text, ours in zip(texts, self._attend(texts, padding=padding, kept=kept), strict=True):
            said = difference([ours], [self._alone[text]]) if kept in (None, text) else None
            if said:
                return f"text of {self.lengths[text]} tokens: {said}"
        return None


def sum_forms(call: Call, limits: Limits) -> list[Form]:
    """Forms of `add_tokens`."""
    random, like, sums = generator(call), call.arguments["x"], call.arguments["sums"]
    lengths = [min(length, limits.max_length) for length in _LENGTHS]
    values = [torch.randn((n, like.shape[1]), generator=random).to(like) for n in lengths]

    def add(total: Tensor, parts: Sequence[tuple[int, int, int]]) -> None:
        counts = [end - start for _, start, end in parts]
        rows = torch.tensor([row for row, _, _ in parts], device=like.device)
        starts = [sum(counts[:i]) for i in range(len(counts))]
        x = torch.cat([values[row][start:end] for row, start, end in parts])
        call.run(sums=total, x=x, rows=rows, starts=starts, counts=counts)

    def zeros() -> Tensor:
        return torch.zeros((len(lengths), sums.shape[1]), dtype=sums.dtype, device=sums.device)

    def alone() -> Tensor:
        total = zeros()
        for row, length in enumerate(lengths):
            add(total, [(row, 0, length)])
        return total

    def compare(*steps: Sequence[tuple[int, int, int]]) -> Callable[[], str | None]:
        def run() -> str | None:
            total = zeros()
            for step in steps:
                add(total, step)
            return difference([total], [alone()])

        return run

    whole = [(row, 0, length) for row, length in enumerate(lengths)]
    first = [(row, 0, length // 2) for row, length in enumerate(lengths) if length > 1]
    second = [(row, length // 2 if length > 1 else 0, length) for row, length in enumerate(lengths)]
    return [
        Form("all texts", compare(whole)),
        Form("another order", compare(whole[::-1])),
        Form("two chunks", compare(first, second[::-1])),
    ]
