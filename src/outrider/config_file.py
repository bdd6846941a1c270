"""Options of a command from a YAML file, `--config FILE`, with the names that they have on the command line.

An option on the command line wins over the file.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from outrider.core.errors import ConfigError


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command that is being parsed. Raises ConfigError."""
    if path is not None:
        names = {parameter.name for parameter in context.command.params} - {"config", "help"}
        context.default_map = read_config(path, known={name for name in names if name is not None})
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", callback=_read, is_eager=True, help="YAML file with options of this command; the command line wins."
    ),
]


def read_config(path: Path, *, known: set[str]) -> dict[str, Any]:
    """Values by the name of their option, `-` and `_` being equal. `known`: the options that a file may have.

    speculative_config may be written as a mapping. Raises ConfigError for a file that cannot be read, and for a key
    that is not an option.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"--config {path} is not valid YAML: {said}. Example: a line `port: 8000`.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} is not a mapping of options to values. Example: a line `port: 8000`.")
    values = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            options = ", ".join(sorted(known))
            raise ConfigError(f"--config {path}: {key!r} is not an option of this command. Options: {options}.")
        if value is not None:
            values[name] = json.dumps(value) if isinstance(value, dict) else value
    return values
