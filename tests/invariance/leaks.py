"""Leaks put in on purpose: wrappers of a kernel whose results depend on what else is in the call."""

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from outrider.invariance.calls import Call
from outrider.invariance.rules import BY_ROW

WRITTEN = {"save_states": "saved_state", "load_states": "state"}
"""The argument that a function without a result writes, where it is not the first one."""


def leaks_of(call: Call) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions in place of the call's own, by name: the last row changes if there are others, all rows change if they
    are many, and, of functions that write a cache, what is written changes, or another slot is written too."""
    yield "last row", _leaking(call, lambda arguments, tensor: _spoil(tensor[-1:]), least=2)
    yield "all rows", _leaking(call, lambda arguments, tensor: _spoil(tensor), least=3)
    if call.name in BY_ROW and BY_ROW[call.name].caches:
        cache = BY_ROW[call.name].caches[-1]

        def written(arguments: dict[str, Any], tensor: Tensor) -> None:
            slot = int(arguments["slots"][-1])
            flat = arguments[cache].flatten(0, 1)
            flat[slot : slot + 1] += 1

        def other(arguments: dict[str, Any], tensor: Tensor) -> None:
            flat = arguments[cache].flatten(0, 1)
            flat[-1] = 0.0  # a slot of the last block, which is not anyone's

        yield "what is written", _leaking(call, written, least=2)
        yield "another slot", _leaking(call, other, least=1)


def with_leak(calls: Sequence[Call], call: Call, function: Callable[..., Any]) -> list[Call]:
    """The calls, of which one calls `function` instead."""
    return [replace(other, function=function) if other is call else other for other in calls]


def with_kernel(calls: Sequence[Call], name: str, function: Callable[..., Any]) -> list[Call]:
    """The calls with one function of their kernels replaced."""
    kernels: Any = types.SimpleNamespace(**vars(calls[0].kernels) | {name: function})
    return [replace(call, kernels=kernels) for call in calls]


def leaking_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that writes its arguments, and a wrong number into the first of them."""

    def run(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        bound = inspect.signature(function).bind(*args, **kwargs)
        _spoil(bound.arguments[WRITTEN[name]])

    return run


def _leaking(call: Call, spoil: Callable[[dict[str, Any], Tensor], None], *, least: int) -> Callable[..., Any]:
    """`spoil` runs where a call has at least this many rows."""

    def run(*args: Any, **kwargs: Any) -> Any:
        bound = call.signature.bind(*args, **kwargs)
        result = call.function(*args, **kwargs)
        changed = (bound.arguments["num_tokens"],) if call.name == "commit" else tuple(bound.arguments.values())
        tensors = list(_tensors(result if result is not None else changed))
        if _num_rows(call.name, bound.arguments) >= least:
            spoil(bound.arguments, tensors[0])
        return result

    return run


def num_rows(call: Call) -> int:
    """The number of rows that a call has."""
    return _num_rows(call.name, call.arguments)


def _num_rows(name: str, arguments: Mapping[str, Any]) -> int:
    if name == "add_tokens":
        return len(arguments["counts"])
    if name == "admit":
        return int(arguments["record"].parts.rows.shape[0])
    if name in ("assemble", "commit", "put_drafts", "chain_known", "chain_drafted", "state_rows"):
        return int(arguments["rows"].shape[0])
    return len(next(value for value in arguments.values() if isinstance(value, Tensor)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "weights") and hasattr(value, "ids"):
        yield value.weights


def _spoil(values: Tensor) -> None:
    """The smallest change of every number, in place."""
    if values.dtype == torch.bool:
        values.logical_not_()
    elif values.is_floating_point():
        values.copy_(torch.nextafter(values.float(), torch.full_like(values, torch.inf, dtype=torch.float32)))
    else:
        values += 1
