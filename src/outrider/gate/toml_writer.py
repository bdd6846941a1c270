"""Writes plain data as readable TOML with long arrays wrapped; `tomllib` reads it back."""

import datetime
import json
import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 116


def write_toml(values: Mapping[str, Any], *, comment: str = "") -> str:
    """`values` as a TOML document; raises TypeError for a value that TOML has no form for."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "\n".join(_table(values, path=())).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], *, path: tuple[str, ...]) -> list[str]:
    """Writes plain values first, because everything after a table's header belongs to that table."""
    lines = [f"{_key(name)} = {_value(value)}" for name, value in values.items() if not _has_head(value)]
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = (*path, _key(name))
            lines += ["", f"[{'.'.join(inner)}]", *_table(value, path=inner)]
        elif _has_head(value):
            for entry in value:
                inner = (*path, _key(name))
                lines += ["", f"[[{'.'.join(inner)}]]", *_table(entry, path=inner)]
    return lines


def _has_head(value: Any) -> bool:
    """True for tables and non-empty arrays of tables."""
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(entry, Mapping) for entry in value)
    )


def _key(name: str) -> str:
    is_bare = bool(name) and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name)
    return name if is_bare else _text(name)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        items = ", ".join(_value(entry) for entry in value)
        if len(items) < _WIDTH - 24 or not all(isinstance(entry, (int, float)) for entry in value):
            return f"[{items}]"
        return "[\n" + textwrap.fill(items, _WIDTH, initial_indent="  ", subsequent_indent="  ") + ",\n]"
    raise TypeError(f"TOML has no form for {value!r}")
