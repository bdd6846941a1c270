"""Which modules of a checkpoint are quantised, and how.

A module is named as in the checkpoint: `model.layers.0.self_attn.q_proj`, never by the fused layer that holds it here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The way in which a matrix is stored: a file of `layers/formats`, and the values of its fields."""

    format: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A scheme for some modules."""

    pattern: re.Pattern[str]
    """Matches all of a module's name."""
    scheme: Scheme | None
    """None: these modules are not quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """The schemes of a checkpoint."""

    method: str
    """`quant_method` of the config, for messages."""
    rules: tuple[Rule, ...]
    """The first rule that matches a module decides; a module that none matches is not quantised."""
    is_chosen_here: bool = False
    """The files are plain, so pieces that are sensitive to rounding can stay so."""
    notes: tuple[str, ...] = ()
    """Sentences about differences from what the config says, for the log."""

    def scheme_of(self, name: str) -> Scheme | None:
        """The scheme of the module called `name` in the checkpoint; None: it is not quantised."""
        return next((rule.scheme for rule in self.rules if rule.pattern.fullmatch(name)), None)


def plain_rule(patterns: Iterable[str], *, where: str) -> tuple[Rule, ...]:
    """One rule for modules that are not quantised; none without patterns. Each pattern must match a whole name."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return (Rule(pattern=compiled(joined, where=where), scheme=None),) if joined else ()


def compiled(pattern: str, *, where: str) -> re.Pattern[str]:
    """The pattern compiled. Raises ConfigError if it is not a regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is not a regular expression ({error}). Correct it.") from error
