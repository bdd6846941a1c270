"""Which attention backend runs, and why: the first of the platform's order that is exact and does not refuse.

The platform says which it excludes; a backend asks for the capability it needs. Each says why.
"""

from dataclasses import dataclass

from outrider.attention import backends as package
from outrider.attention.base import AttentionBackend
from outrider.attention.kv import KVSpec
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


def select_backend(name: str, spec: KVSpec, platform: BasePlatform) -> Selection:
    """`name` is a backend's file name or "auto"; `ConfigError` where none can run."""
    kernels = load_kernels(platform.kernel_stack)
    reasons = {known: _refusal(known, spec, platform) for known in plugins.names(package)}
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
            reason = f"first of {platform.name}'s backends that fits {platform.summary}: {order}"
            return Selection(backend, reason, _others(preferred, reasons))
    listed = "; ".join(f"{known}: {reason}" for known, reason in _others("", reasons))
    raise ConfigError(f"no attention backend can run {spec} on {platform.name}. {listed}.")


def _refusal(name: str, spec: KVSpec, platform: BasePlatform) -> str | None:
    if name in platform.excluded_backends:
        return platform.excluded_backends[name]
    backend: type[AttentionBackend] = plugins.find(package, name, what="attention_backend").Backend
    return backend.refuses(spec, platform)


def _reason_against_auto(name: str, platform: BasePlatform) -> str | None:
    """Why a backend that could run is never chosen unasked."""
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
