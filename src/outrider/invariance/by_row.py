"""Kernels whose result for a row follows from that row: products, norms, experts, samplers, writes to a cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from outrider.invariance.calls import Call, with_strides
from outrider.invariance.comparison import difference
from outrider.invariance.form import Form, Limits, generator

_SIZES = (1, 2, 17, 3, 4, 5, 8, 16, 33, 64, 65, 128, 129, 256, 257, 512, 513, 1024)
_NUM_QUICK_SIZES = 3

_LEAST_ROWS = 20
"""Rows of a case, however wide they are: more than a tile of 16."""

_NUM_MASKS = 3
"""Masks of grammars, of random bits: the recorded ones may allow nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByRow:
    """The kinds of a function's arguments."""

    rows: tuple[str, ...]
    """One entry for each row of the call."""
    indices: tuple[str, ...] = ()
    """Lists of rows that only save work: all rows are listed, or None."""
    caches: tuple[str, ...] = ()
    """Memory that is written at the argument `slots`."""
    is_sampling: bool = False
    """Rows are samples, not tokens."""

    def forms(self, call: Call, limits: Limits) -> list[Form]:
        """The forms of a call."""
        return _Case(self, call, limits).forms()


class _Case:
    """A call with as many rows as a step may have."""

    def __init__(self, rule: ByRow, call: Call, limits: Limits) -> None:
        self._rule, self._call = rule, call
        self._names = [name for name in rule.rows if isinstance(call.arguments[name], Tensor)]
        most = limits.max_samples if rule.is_sampling else limits.max_tokens
        widest = max(_num_outputs(call), *(call.arguments[name][:1].numel() for name in self._names))
        self._count = min(most, max(_LEAST_ROWS, limits.num_elements // widest))
        self._random = generator(call)
        self._inputs = {name: self._rows_like(name) for name in self._names}
        self._tables: dict[str, Tensor] = {}
        if "words" in call.arguments:
            like = call.arguments["words"]
            values = torch.randint(-(1 << 31), 1 << 31, (_NUM_MASKS, like.shape[1]), generator=self._random)
            self._tables = {"words": values.to(like)}
        if call.router is not None:
            self._router_logits = self._floats_like(call.router.arguments["logits"])

    def _rows_like(self, name: str) -> Tensor:
        recorded = self._call.arguments[name]
        if name == "slots":
            return torch.randperm(self._count, generator=self._random).to(recorded)
        if name == "of_sample":
            return (torch.arange(self._count) % (_NUM_MASKS + 1) - 1).to(recorded)
        if recorded.is_floating_point():
            return self._floats_like(recorded)
        # whole entries of the recorded call, all integers of a row from the same one: such rows occur
        return recorded[torch.arange(self._count, device=recorded.device) % recorded.shape[0]]

    def _floats_like(self, recorded: Tensor) -> Tensor:
        """Numbers as large as the recorded ones; rows differ in size, and every fifth has many ties."""
        finite = torch.where(recorded.isfinite(), recorded, 0.0).double()
        size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
        shape = (self._count, *recorded.shape[1:])
        factors = torch.tensor([0.5, 1.0, 2.0])[torch.arange(self._count) % 3]
        values = torch.randn(shape, generator=self._random) * factors.view(-1, *(1 for _ in shape[1:]))
        values[::5] = (values[::5] * 4).round() / 4
        return (values * (size or 1.0)).to(recorded.device, recorded.dtype)

    def _run(self, index: Tensor, *, kept: Tensor | None = None) -> list[Tensor]:
        """Results of some rows in one call. kept [N] bool: all other rows are NaN."""
        changed: dict[str, Any] = dict(self._tables)
        for name in self._names:
            values = self._inputs[name][index]
            if kept is not None and values.is_floating_point():
                values = values.masked_fill(~kept[index].view(-1, *(1 for _ in values.shape[1:])), float("nan"))
            changed[name] = with_strides(values, self._call.arguments[name])
        for name in self._rule.indices:
            if self._call.arguments[name] is not None:
                changed[name] = torch.arange(len(index), device=index.device)
        router = self._call.router
        if "routing" in self._call.arguments:
            assert router is not None, f"the routing of {self._call.name} was not recorded"
            changed["routing"] = router.run(logits=self._router_logits[index])
        if not self._rule.caches:
            return results(self._call.run(**changed))
        caches = {name: self._cache_like(self._call.arguments[name]) for name in self._rule.caches}
        result = self._call.run(**changed, **caches)
        written = [cache.flatten(0, 1) for cache in caches.values()]
        found = [*results(result), *(cache[changed["slots"]] for cache in written)]
        for name, cache in zip(caches, written, strict=True):
            is_kept = cache.reshape(len(cache), -1).isnan().all(dim=1)
            is_kept[changed["slots"]] = True
            if not bool(is_kept.all()):
                raise RuntimeError(f"it wrote to {name} at a slot that no row has")
        return found

    def _cache_like(self, recorded: Tensor) -> Tensor:
        """Enough blocks for all rows, full of NaN."""
        num_blocks = -(-self._count // recorded.shape[1]) + 1
        shape = (num_blocks, *recorded.shape[1:])
        return torch.full(shape, float("nan"), dtype=recorded.dtype, device=recorded.device)

    @cached_property
    def _all(self) -> Tensor:
        return torch.arange(self._count, device=self._inputs[self._names[0]].device)

    @cached_property
    def _whole(self) -> list[Tensor]:
        return self._run(self._all)

    def _same(self, index: Tensor) -> str | None:
        return difference(self._run(index), [part[index] for part in self._whole])

    def _same_in_nan(self, rows: Sequence[int]) -> str | None:
        kept = torch.zeros(self._count, dtype=torch.bool, device=self._all.device)
        index = self._all[list(rows)]
        kept[index] = True
        found = self._run(self._all, kept=kept)
        return difference([part[index] for part in found], [part[index] for part in self._whole])

    def forms(self) -> list[Form]:
        count, last = self._count, self._count - 1

        def same(index: Callable[[], Tensor]) -> Callable[[], str | None]:
            return lambda: self._same(index())

        found = [Form(f"row {row} alone", same(lambda row=row: self._all[row : row + 1])) for row in {0, count // 2}]  # type: ignore[misc]
        sizes = [size for size in _SIZES if size < count]
        for place, size in enumerate(sizes):
            take = same(lambda size=size: self._all[-size:])  # type: ignore[misc]
            found.append(Form(f"{size} rows", take, is_quick=place < _NUM_QUICK_SIZES))
        order = torch.randperm(count, generator=self._random)
        found.append(Form("a permutation", same(lambda: self._all[order.to(self._all.device)])))
        found.append(Form("NaN around", lambda: self._same_in_nan((0, count // 3, last))))
        found.append(Form("odd rows", same(lambda: self._all[1::2]), is_quick=False))
        alone = torch.randperm(count, generator=self._random)[:8].tolist()
        found += [
            Form(f"row {row} alone", same(lambda row=row: self._all[row : row + 1]), is_quick=False)  # type: ignore[misc]
            for row in alone
        ]
        return found


def _num_outputs(call: Call) -> int:
    """Numbers that a product gives for a row; 1 for other functions."""
    weight: Any = call.arguments.get("weight")
    if weight is None:
        return 1
    return int(getattr(weight, "whole_shape", weight.data.shape)[0])


def results(result: Any) -> list[Tensor]:
    """The tensors of a kernel's result, one entry for each row."""
    if result is None:
        return []
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, tuple):
        return [part for part in result if part is not None]
    return [result.weights, result.ids]
