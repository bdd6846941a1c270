"""Records calls of kernels while something else runs them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels

_PER_STEP = {"routing", "plan", "at"}
"""Arguments that are made in each step, in a form private to a stack."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One call of a kernel."""

    name: str
    function: Callable[..., Any]
    kernels: Kernels
    """The kernels that the function belongs to."""
    signature: inspect.Signature
    arguments: Mapping[str, Any]
    """By name, with defaults. Rows are copies; weights and tables are those of the engine."""
    router: "Call | None" = None
    """The call that made the argument `routing`."""

    def run(self, **changed: Any) -> Any:
        """Call the function again, with some arguments changed."""
        bound = self.signature.bind_partial()
        bound.arguments.update({name: changed.get(name, value) for name, value in self.arguments.items()})
        return self.function(*bound.args, **bound.kwargs)


@contextmanager
def recording(
    kernel_sets: Sequence[Kernels], rows: Mapping[str, tuple[str, ...]], *, whole: frozenset[str] = frozenset()
) -> Iterator[list[Call]]:
    """Inside this context the calls of the sets' functions in `rows` are recorded: the first of each kind.

    rows   arguments of each function with one entry for each row; calls that differ in their rows alone are of one kind
    whole  functions of which calls with other numbers of rows are another kind, and all tensors are copied
    """
    recorder = _Recorder(rows, whole)
    originals = [(kernels, name, getattr(kernels, name)) for kernels in _distinct(kernel_sets) for name in rows
                 if hasattr(kernels, name)]  # fmt: skip
    for kernels, name, function in originals:
        setattr(kernels, name, recorder.spy(kernels, name, function))
    try:
        yield recorder.calls
    finally:
        for kernels, name, function in originals:
            setattr(kernels, name, function)


def _distinct(kernel_sets: Sequence[Kernels]) -> list[Kernels]:
    return list({id(kernels): kernels for kernels in kernel_sets}.values())


class _Recorder:
    def __init__(self, rows: Mapping[str, tuple[str, ...]], whole: frozenset[str]) -> None:
        self.calls: list[Call] = []
        self._rows, self._whole = rows, whole
        self._kinds: set[tuple[Any, ...]] = set()
        self._routings: list[tuple[Any, Call]] = []

    def spy(self, kernels: Kernels, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            kept = self._keep(kernels, name, function, signature, bound.arguments)
            result = function(*args, **kwargs)
            if kept is not None and name in ("route", "route_grouped"):
                self._routings = [(result, kept)]  # the experts of a layer follow its router
            return result

        return call

    def _keep(
        self,
        kernels: Kernels,
        name: str,
        function: Callable[..., Any],
        signature: inspect.Signature,
        arguments: Mapping[str, Any],
    ) -> Call | None:
        """A call of a kind that is new is recorded. A router's call is returned in any case."""
        rows, copies_all = self._rows[name], name in self._whole
        kind = (name, *(_kind(value, is_row=key in rows and not copies_all) for key, value in arguments.items()))
        is_router = name in ("route", "route_grouped")
        is_known = kind in self._kinds
        if is_known and not is_router:
            return None
        router = next((call for result, call in self._routings if result is arguments.get("routing")), None)
        copied = {
            key: copy_of(value) if copies_all or (key in rows and key not in _PER_STEP) else value
            for key, value in arguments.items()
        }
        found = Call(
            name=name, function=function, kernels=kernels, signature=signature, arguments=copied, router=router
        )  # fmt: skip
        if not is_known:
            self._kinds.add(kind)
            self.calls.append(found)
        return found


def _kind(value: Any, *, is_row: bool) -> Any:
    """Tells one kind of call from another: shapes and dtypes of tensors, and everything else by value."""
    if isinstance(value, Tensor):
        strides = value.stride()[1:] if value.dim() > 1 else ()
        return value.dtype, tuple(value.shape[1:] if is_row else value.shape), strides
    if is_row or value is None:
        return type(value)
    if isinstance(value, (bool, int, float, str, torch.dtype)):
        return value
    if isinstance(value, tuple):
        return tuple(_kind(part, is_row=False) for part in value)
    shape = getattr(value, "whole_shape", None)
    return type(value), shape


def copy_of(value: Any) -> Any:
    """A copy in memory of its own, with the strides of its rows; of tuples, too."""
    if isinstance(value, Tensor):
        return with_strides(value, value)
    if isinstance(value, tuple):
        parts = [copy_of(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def with_strides(values: Tensor, like: Tensor) -> Tensor:
    """A copy of `values` [rows, …] whose rows lie as far apart as those of `like`, NaN or 0 between them."""
    width = values[0].numel() if values.shape[0] else 0
    step = like.stride(0) if like.dim() > 0 else 0
    inner = [(size - 1) * stride for size, stride in zip(like.shape[1:], like.stride()[1:], strict=True)]
    if values.dim() < 2 or like.is_contiguous() or step <= sum(inner) or width == 0:
        return values.clone(memory_format=torch.contiguous_format)
    filler = float("nan") if values.is_floating_point() else 0
    memory = torch.full((values.shape[0] * step,), filler, dtype=values.dtype, device=values.device)
    copy = memory.as_strided(values.shape, like.stride())
    copy.copy_(values)
    return copy


def on_host(value: Any) -> Any:
    """A copy in the host's memory; of tuples, too."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, tuple):
        parts = [on_host(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return torch.device("cpu") if isinstance(value, torch.device) else value
