"""Reading a drafter's own options: what `speculative_config` holds beside the options that every drafter has.

A drafter's module exports them as a frozen dataclass `Options`, which checks its values in `__post_init__`. A module
without one takes no options of its own.
"""

from dataclasses import MISSING, dataclass, fields, is_dataclass
from reprlib import repr as short
from types import ModuleType
from typing import Any

from outrider.core.config import SpeculativeConfig
from outrider.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Options of a drafter that has none."""


def read_options(module: ModuleType, config: SpeculativeConfig) -> Any:
    """The module's `Options` with the values of `config.options`; lists become tuples.

    Raises ConfigError if an option is not the drafter's, is missing, or has a wrong value.
    """
    kind = getattr(module, "Options", NoOptions)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ConfigError(
            f"drafter (speculative_config['method']) {config.method!r}: its Options is not a dataclass. Decorate"
            " it with @dataclass(frozen=True, slots=True, kw_only=True)."
        )
    known = {entry.name: entry for entry in fields(kind)}
    unknown = {name: value for name, value in config.options.items() if name not in known}
    if unknown:
        given = ", ".join(f"{name}={short(value)}" for name, value in unknown.items())
        own = ", ".join(known) or "no options of its own"
        shared = ", ".join(SpeculativeConfig.shared_options())
        raise ConfigError(
            f"speculative_config: method {config.method!r} does not take {given}. It takes {own}; every method takes"
            f" {shared}. Remove the others."
        )
    for name, entry in known.items():
        is_required = entry.default is MISSING and entry.default_factory is MISSING
        if is_required and name not in config.options:
            raise ConfigError(
                f"speculative_config: method {config.method!r} needs {name!r}. Add it:"
                f" {{'method': {config.method!r}, {name!r}: …}}."
            )
    return kind(**{name: _frozen(value) for name, value in config.options.items()})


def check_directory(name: str, value: Any) -> None:
    """An option that names a directory must be a string; whether the directory is there is seen when it is read."""
    if not isinstance(value, str):
        raise ConfigError(f"speculative_config[{name!r}]={value!r} must be a string: the path of a directory.")


def _frozen(value: Any) -> Any:
    """`value` with tuples for lists, inner ones too."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
