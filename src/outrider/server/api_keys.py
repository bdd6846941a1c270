"""Collects the keys of callers: from the command line, a file, and the environment.

Other users of a machine can read a command line, so a file or the environment is the better place.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from outrider.core.errors import ConfigError

VARIABLE = "OUTRIDER_API_KEY"
"""Environment variable with one key."""


def api_keys(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """All keys, each once: `given`, those in the lines of `file`, and that of the environment. Raises ConfigError."""
    keys = [*given]
    if file is not None:
        keys += _read(file)
    if key := os.environ.get(VARIABLE, "").strip():
        keys.append(key)
    return tuple(dict.fromkeys(keys))


def _read(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"api_key_file={str(file)!r} is not a file. Give a file with a key in each line.")
    try:
        keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file={str(file)!r} cannot be read: {type(error).__name__}.") from error
    if not keys:
        raise ConfigError(f"api_key_file={str(file)!r} holds no key. Write one in each line.")
    return keys
