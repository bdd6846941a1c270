"""A wrong command line in one sentence with a remedy, in place of typer's frame. Knows typer's errors, runs nothing."""

from collections.abc import Sequence
from typing import Any

import typer

from outrider.cli.command_group import COMMANDS, load_command

UsageError: type[Any] = typer.BadParameter.__mro__[2]
"""The base of all errors of a command line, which releases of typer keep in different modules."""


def described(error: Any, words: Sequence[str]) -> str:
    """Cause and remedy in one line; empty if help was printed already. `words`: the command line without its start."""
    context = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).rstrip(".")
    if not said:
        return ""
    command = _command(words) if context is None else "outrider" + context.command_path.removeprefix(_program(context))
    end = "" if said.endswith("?") else "."
    return f"{said}{_value(error, words)}{end} `{command} --help` lists what it takes."


def _program(context: Any) -> str:
    """The word or words that started the command line."""
    path: str = context.find_root().command_path
    return path


def _command(words: Sequence[str]) -> str:
    """The command that `words` begin with."""
    path = ["outrider"]
    if words and words[0] in COMMANDS:
        path.append(words[0])
        path += [word for word in words[1:2] if word in getattr(load_command(words[0]), "commands", ())]
    return " ".join(path)


def _value(error: Any, words: Sequence[str]) -> str:
    """The value that an option refuses, on the command line or in a file of options; empty if it is not known."""
    parameter = getattr(error, "param", None)
    if parameter is None:
        return ""
    given = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in parameter.opts:
            given.append(value if equals else following)
    if given:
        return f" (given: {given[0]!r})" if len(given) == 1 else ""
    configured = (error.ctx.default_map or {}).get(parameter.name)
    return "" if configured is None else f" (given in --config: {configured!r})"
