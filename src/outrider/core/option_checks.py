"""Checks of option values: each raises ConfigError with the value, the reason and the remedy.

`name` is the option's name in the error message, such as "max_num_seqs" or "speculative_config['adaptive']".
"""

from typing import Any

from outrider.core.errors import ConfigError


def check_integer(name: str, value: Any, *, low: int, high: int, remedy: str) -> None:
    """`value` must be an integer in [low, high]; True and 2.0 are not."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. {remedy}")


def check_flag(name: str, value: Any) -> None:
    """`value` must be True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be True or False.")


def check_text(name: str, value: Any) -> None:
    """`value` must be a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}={value!r} must be a string that is not empty.")


def is_number(value: Any, *, low: float, high: float) -> bool:
    """True for an int or float in [low, high]; False for NaN and booleans."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
