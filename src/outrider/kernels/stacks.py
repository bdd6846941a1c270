"""Finding kernel stacks and joining them: each function comes from the first stack of an order that exports it.

A stack is a sub-package of `outrider.kernels`. It exports the functions of the interface that its modules define; a
module with `__all__` exports what that names. A stack may define a function in any module.
"""

import functools
import importlib
import pkgutil
import types
from collections.abc import Callable, Iterator
from importlib.abc import InspectLoader
from typing import Any, cast

from outrider.core.errors import ConfigError, UnsupportedError
from outrider.kernels.interface import ENCODER_FUNCTIONS, FUNCTIONS, OPTIONAL, OPTIONAL_FUNCTIONS, Kernels

_PACKAGE = __name__.rpartition(".")[0]
_NO_STACK = {"interface"}

_TOGETHER = (("route", "experts"), ("plan_attention", "paged_attention"))
"""Pairs of functions: the second takes the result of the first, in a form private to the stack."""


def stack_names() -> list[str]:
    """All kernel stacks, sorted."""
    path = importlib.import_module(_PACKAGE).__path__
    return sorted(info.name for info in pkgutil.iter_modules(path) if info.ispkg and info.name not in _NO_STACK)


def load_kernels(order: tuple[str, ...]) -> Kernels:
    """The kernels of an order of stacks, such as ("hopper", "triton").

    Raises ConfigError where a stack is not known, no stack of the order has a function of the interface, two modules
    of a stack export the same function, or two functions that must come from one stack do not.
    """
    if unknown := [stack for stack in order if stack not in stack_names()]:
        raise ConfigError(f"kernel stack {unknown[0]!r} is not known. Known: {', '.join(stack_names())}.")
    functions: dict[str, Callable[..., Any]] = {}
    origins: dict[str, str] = {}
    found_in = {stack: exports(stack) for stack in order}
    for stack in order:
        for name, function in found_in[stack].items():
            if name not in functions and name in FUNCTIONS:
                functions[name], origins[name] = function, stack
    if missing := [name for name in FUNCTIONS if name not in functions]:
        raise ConfigError(
            f"kernel_stack={order!r} has no {', '.join(missing)}. Name another stack after it that has"
            f" {'it' if len(missing) == 1 else 'them'}."
        )
    for first, second in _TOGETHER:
        if origins[first] != origins[second]:
            raise ConfigError(
                f"kernel_stack={order!r} takes {first} from {origins[first]!r} and {second} from {origins[second]!r},"
                f" which work together only within one stack. Add both to one stack, or change the order."
            )
    # layouts of weights, routings and plans are private to a stack: kernels that share them come from the same stack
    for decisive, subjects in OPTIONAL.items():
        stack_of = found_in[origins[decisive]]
        functions |= {name: stack_of[name] for subject in subjects for name in vars(subject) if name in stack_of}
    in_order = {name: origins[name] for name in FUNCTIONS}
    return cast(Kernels, types.SimpleNamespace(**functions, origins=in_order))


def kernels_of_texts(kernels: Kernels) -> Kernels:
    """The kernels of an encoder: `linear` is `text_linear`.

    Raises UnsupportedError, with the remedy, if the stacks of the device have no kernels of encoders.
    """
    if missing := [name for name in ENCODER_FUNCTIONS if not hasattr(kernels, name)]:
        raise UnsupportedError(
            f"encoders are not supported on this device: its kernel stack {kernels.origins['linear']!r} has no"
            f" {', '.join(missing)}. Use device='cpu', or an embedding model that is a decoder."
        )
    return cast(Kernels, types.SimpleNamespace(**(vars(kernels) | {"linear": kernels.text_linear})))


def exports(stack: str) -> dict[str, Callable[..., Any]]:
    """The functions of the interface that the modules of one stack export, by name."""
    found: dict[str, types.ModuleType] = {}
    for module in _modules(stack):
        for name in FUNCTIONS + OPTIONAL_FUNCTIONS:
            if not _is_exported(module, name):
                continue
            if name in found:
                raise ConfigError(
                    f"kernel stack {stack!r} has two functions {name!r}, in {found[name].__name__} and"
                    f" {module.__name__}. Rename or remove one."
                )
            found[name] = module
    return {name: getattr(module, name) for name, module in found.items()}


def describe_stacks(kernels: Kernels) -> str:
    """The stacks that the functions come from: "reference", or "third (rms_norm), reference (the other 33)"."""
    by_stack: dict[str, list[str]] = {}
    for name, stack in kernels.origins.items():
        by_stack.setdefault(stack, []).append(name)
    if len(by_stack) == 1:
        return next(iter(by_stack))
    fewest_first = sorted(by_stack.items(), key=lambda item: len(item[1]))
    parts = [f"{stack} ({', '.join(names)})" for stack, names in fewest_first[:-1]]
    stack, names = fewest_first[-1]
    return ", ".join([*parts, f"{stack} (the other {len(names)})"])


def _modules(stack: str) -> Iterator[types.ModuleType]:
    package = importlib.import_module(f"{_PACKAGE}.{stack}")
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def _is_exported(module: types.ModuleType, name: str) -> bool:
    if not hasattr(module, name):
        return False
    return name in module.__all__ if hasattr(module, "__all__") else name in _definitions(module)


@functools.cache
def _definitions(module: types.ModuleType) -> frozenset[str]:
    """Names of the functions that the module's source defines, whatever they are bound to now."""
    loader = module.__spec__.loader if module.__spec__ is not None else None
    assert isinstance(loader, InspectLoader), f"{module.__name__} was not imported from a file"
    code = loader.get_code(module.__name__)
    assert code is not None, f"{module.__name__} has no code"
    return frozenset(const.co_name for const in code.co_consts if isinstance(const, types.CodeType))
