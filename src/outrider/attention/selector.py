"""Selects the attention backend: the first in the platform's order that is exact and supports every layer's cache.

The platform says which backends it excludes; a backend says which capability it needs. Both give a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.caches.paged import PagedSpec
from outrider.core import plugins
from outrider.core.errors import ConfigError
from outrider.kernels import load_kernels
from outrider.platforms.base import BasePlatform


@dataclass(frozen=True, slots=True)
class Selection:
    """The backend that was chosen, with the reasons for it and against the others."""

    backend: AttentionBackend
    reason: str
    refused: tuple[tuple[str, str], ...]
    """(name, why not) of every other backend."""


def select_backend(name: str, specs: Sequence[PagedSpec], platform: BasePlatform) -> Selection:
    """Choose the backend for all layers. `name` is a backend's file name or "auto", `specs` the cache of each layer.

    Raises ConfigError if no backend accepts every layer.
    """
    kernels = load_kernels(platform.kernel_stack)
    reasons = {known: _refusal(known, specs, platform) for known in plugins.names(package)}
    if name != "auto":
        found = plugins.find(package, name, what="attention_backend")
        if reason := reasons[name]:
            raise ConfigError(
                f"attention_backend={name!r} cannot be used: {reason}. Set 'auto' to let the engine choose."
            )
        return Selection(found.Backend(kernels), "asked for by name", _others(name, reasons))
    for other in reasons:
        reasons[other] = reasons[other] or _reason_against_auto(other, platform)
    for preferred in platform.attention_backends:
        if reasons[preferred] is None:
            backend = plugins.find(package, preferred, what="attention_backend").Backend(kernels)
            order = ", ".join(platform.attention_backends)
            reason = f"first of {platform.name}'s backends ({order}) that fits {platform.summary}"
            return Selection(backend, reason, _others(preferred, reasons))
    listed = "; ".join(f"{known}: {reason}" for known, reason in _others("", reasons))
    raise ConfigError(f"no attention backend can run this model on {platform.name}. {listed}.")


def refusal_of(backend: type[AttentionBackend], specs: Sequence[PagedSpec], platform: BasePlatform) -> str | None:
    """The reason why the backend cannot run one of the layers, or None if it can run all."""
    return next(filter(None, (backend.refuses(spec, platform) for spec in dict.fromkeys(specs))), None)


def _refusal(name: str, specs: Sequence[PagedSpec], platform: BasePlatform) -> str | None:
    if name in platform.excluded_backends:
        return platform.excluded_backends[name]
    backend: type[AttentionBackend] = plugins.find(package, name, what="attention_backend").Backend
    return refusal_of(backend, specs, platform)


def _reason_against_auto(name: str, platform: BasePlatform) -> str | None:
    """The reason why "auto" never chooses a backend that could run, or None if it may."""
    backend: type[AttentionBackend] = plugins.find(package, name, what="attention_backend").Backend
    if not backend.is_exact:
        return "it is not exact: its results depend on the batch; ask for it by name"
    if name not in platform.attention_backends:
        return f"it is not among {platform.name}'s backends; ask for it by name"
    return None


def _others(chosen: str, reasons: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, reason or "not needed: another one comes first") for name, reason in reasons.items() if name != chosen
    )
