"""Reads a JSON object such as config.json and records which keys were read.

Every key ends up in one of four ways: read, ignored by name with a reason, neutral (its value changes nothing), or
refused. `finish` refuses every key that is left, all of them in one error. The callers state which keys
there are and what they mean. No torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from outrider.core.errors import ConfigError, UnsupportedError

MAX_INTEGER = 2**31 - 1

_REMEDY = (
    " A key that is not known may change what the model computes, so none is skipped. Remove a key if the model"
    " computes the same without it; otherwise this model is not supported."
)


class ConfigReader:
    """One JSON object and its nested objects. null counts as absent everywhere."""

    def __init__(self, values: Mapping[str, Any], *, where: str = "config.json", prefix: str = "") -> None:
        """`where`: file name for errors. `prefix`: path of a nested object, such as "rope_scaling."."""
        self.where = where
        self._values = values
        self._prefix = prefix
        self._read: set[str] = set()
        self._ignored: dict[str, str] = {}
        self._neutral: dict[str, tuple[Any, ...]] = {}
        self._sections: dict[str, ConfigReader] = {}
        self._assumed: dict[str, Any] = {}

    def assume(self, values: Mapping[str, Any]) -> None:
        """Values of keys that the config may leave out, because the model's own code has them. They count
        before the `default` of a read."""
        self._assumed |= values

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of the object, whether they were read or not."""
        return tuple(self._values)

    def is_object(self, key: str) -> bool:
        """True where the key holds a nested object. Does not count as reading it."""
        return isinstance(self._values.get(key), Mapping)

    def has(self, key: str) -> bool:
        """True where the key is present and not null. A null counts as read."""
        if key in self._values and self._values[key] is None:
            self._read.add(key)
        return self._values.get(key) is not None

    def integer(self, key: str, *, default: int | None = None, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        """An integer between the bounds; required without a `default`."""
        value = self._take(key, default)
        if not _is_integer(value) or not minimum <= value <= maximum:
            kind = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
            limit = f" of at most {maximum}" if _is_integer(value) and value > maximum else ""
            raise ConfigError(f"{self.said(key)} must be {kind}{limit}.")
        return int(value)

    def number(self, key: str, *, default: float | None = None, can_be_zero: bool = False) -> float:
        """A positive finite number, or 0 if it can be; required without a `default`."""
        value = self._take(key, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf or (value == 0 and not can_be_zero):
            raise ConfigError(f"{self.said(key)} must be a positive number{' or 0' if can_be_zero else ''}.")
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.said(key)} must be true or false.")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """A string; required without a `default`."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise ConfigError(f"{self.said(key)} must be a string.")
        return value

    def choice(self, key: str, allowed: Sequence[Any], *, default: Any = None) -> Any:
        """One of the values that are supported; required without a `default`."""
        value = self._take(key, default)
        if not any(_equal(value, one) for one in allowed):
            listed = ", ".join(repr(one) for one in allowed)
            raise UnsupportedError(f"{self.said(key)} is not supported. Supported: {listed}.")
        return value

    def integers(self, key: str, *, minimum: int = 0) -> tuple[int, ...]:
        """A list of integers; empty where the key is absent."""
        value = self._take(key, ())
        if not isinstance(value, (list, tuple)) or not all(_is_integer(one) and one >= minimum for one in value):
            raise ConfigError(f"{self.said(key)} must be a list of integers of at least {minimum}.")
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive finite numbers; required."""
        value = self._take(key, None)
        if not isinstance(value, (list, tuple)) or not all(_is_positive(one) for one in value):
            raise ConfigError(f"{self.said(key)} must be a list of positive numbers.")
        return tuple(float(one) for one in value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty where the key is absent."""
        value = self._take(key, ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise ConfigError(f"{self.said(key)} must be a list of strings.")
        return tuple(value)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """A token id or a list of token ids, each once; empty where the key is absent."""
        value = self._take(key, ())
        ids = value if isinstance(value, (list, tuple)) else [value]
        if not all(_is_integer(one) and one >= 0 for one in ids):
            raise ConfigError(f"{self.said(key)} must be a token id or a list of token ids.")
        return tuple(dict.fromkeys(ids))

    def section(self, key: str) -> "ConfigReader":
        """The nested object at `key`, always the same reader; an empty one where the key is absent."""
        value = self._take(key, {})
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.said(key)} must be an object.")
        if key not in self._sections:
            self._sections[key] = ConfigReader(value, where=self.where, prefix=f"{self._prefix}{key}.")
        return self._sections[key]

    def ignore(self, *keys: str, reason: str) -> None:
        """Skip these keys whatever their values. `reason`: why they change nothing."""
        for key in keys:
            if key in self._values:
                self._ignored.setdefault(key, reason)

    def neutral(self, key: str, *values: Any, reason: str) -> None:
        """Skip `key` where its value is null or one of `values`. Other values are left for `finish` to refuse."""
        if key not in self._values:
            return
        self._neutral.setdefault(key, values)
        if self._values[key] is None or any(_equal(self._values[key], value) for value in values):
            self._ignored.setdefault(key, reason)

    def refuse(self, key: str, reason: str) -> None:
        """UnsupportedError where `key` holds anything but null, false, 0 or something empty. `reason`: why, and the
        remedy."""
        if self._values.get(key):
            raise UnsupportedError(f"{self.said(key)} is not supported: {reason}")
        self._read.add(key)

    def finish(self) -> None:
        """Raises UnsupportedError that lists every key that was not read, ignored or neutral, in all sections."""
        if left := self._left():
            raise UnsupportedError(f"{self.where}: keys that are not supported: {'; '.join(left)}.{_REMEDY}")

    def said(self, key: str) -> str:
        """The beginning of an error message: the file, the key's path and its value."""
        return f"{self.where}: {self._prefix}{key}={_shown(self._values.get(key))}"

    @property
    def keys_read(self) -> frozenset[str]:
        """Paths of the keys that were read; keys of a nested object have the prefix "section."."""
        own = {self._prefix + key for key in self._read if key in self._values}
        return frozenset(own.union(*(section.keys_read for section in self._sections.values())))

    @property
    def keys_ignored(self) -> dict[str, str]:
        """Path -> reason of each key that was ignored and not read."""
        found = {self._prefix + key: reason for key, reason in self._ignored.items() if key not in self._read}
        for section in self._sections.values():
            found |= section.keys_ignored
        return found

    def _take(self, key: str, default: Any) -> Any:
        """The value, which now counts as read. ConfigError if neither it nor a default is given."""
        self._read.add(key)
        value = self._values.get(key)
        if value is None:
            value = self._assumed.get(key)
        if value is not None:
            return value
        if default is None:
            raise ConfigError(
                f"{self.where} has no {self._prefix}{key}. Copy the file that came with the original checkpoint."
            )
        return default

    def _left(self) -> list[str]:
        """path=value of each key that was not read, with its neutral values if it has any."""
        left = []
        for key in self._values:
            if key in self._read or key in self._ignored:
                continue
            only = f" (only {' or '.join(map(repr, self._neutral[key]))})" if self._neutral.get(key) else ""
            left.append(f"{self._prefix}{key}={_shown(self._values[key])}{only}")
        return left + [entry for section in self._sections.values() for entry in section._left()]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _equal(value: Any, other: Any) -> bool:
    """Equality that tells true from 1 and false from 0."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
