"""Which attention backend runs, and why: the first of the platform's list that does not refuse."""

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
    kernels = load_kernels(platform.kernels)
    reasons = {known: _refusal(known, spec, platform) for known in plugins.names(package)}
    if name != "auto":
        found = plugins.find(package, name, what="attention_backend")
        if reason := reasons[name]:
            raise ConfigError(
                f"attention_backend={name!r} cannot be used: {reason}. Set 'auto' to let the engine choose."
            )
        return Selection(found.Backend(kernels), "asked for by name", _others(name, reasons))
    for preferred in platform.attention_backends:
        if reasons.get(preferred, "not built") is None:
            backend = plugins.find(package, preferred, what="attention_backend").Backend(kernels)
            reason = f"first of {platform.name}'s backends that fits: {', '.join(platform.attention_backends)}"
            return Selection(backend, reason, _others(preferred, reasons))
    listed = "; ".join(f"{known}: {reason}" for known, reason in _others("", reasons))
    raise ConfigError(f"no attention backend can run {spec} on {platform.name}. {listed}.")


def _refusal(name: str, spec: KVSpec, platform: BasePlatform) -> str | None:
    if name in platform.excluded_backends:
        return platform.excluded_backends[name]
    backend: type[AttentionBackend] = plugins.find(package, name, what="attention_backend").Backend
    return backend.refuses(spec, platform)


def _others(chosen: str, reasons: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, reason or "not needed: another one comes first") for name, reason in reasons.items() if name != chosen
    )
