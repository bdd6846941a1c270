"""The commands of `outrider`, each imported when it is used, so that help and typing errors need no engine."""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "generate": ("outrider.cli.generate:generate", "Complete prompts and colour each token by its origin."),
    "serve": ("outrider.cli.serve:serve", "Serve a model over HTTP with the endpoints of OpenAI and vLLM."),
    "chat": ("outrider.cli.chat:chat", "Talk with a model in the terminal, here or on a server."),
    "info": ("outrider.cli.info:info", "Show what would run here, and why."),
    "verify": ("outrider.cli.verify:verify", "Check on this device that tokens depend on nothing but the request."),
    "demo": ("outrider.cli.demo:demo", "Complete a few prompts of the zoo, and show what speculation did."),
    "pull": ("outrider.cli.pull:pull", "Download models of a hub, and print where they are."),
    "quantize": ("outrider.cli.quantize:quantize", "Write a quantised copy of a model."),
    "bench": ("outrider.bench.cli:app", "Measure the speed of an engine, of the host alone, or of a server."),
    "gate": ("outrider.gate.commands:app", "Check a drafter for regressions."),
}
"""Command to its function or group, as module:name, and its line in the list of commands."""


class CommandGroup(TyperGroup):
    """The group `outrider`; its commands are those of `COMMANDS`, in that order."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command that imports its module when it is used; None if there is none of this name."""
        return _Deferred(name=cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None


class _Deferred(TyperCommand):
    """Stands for a command in lists; parsing its arguments imports the command."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, which is run in it."""
        assert self.name is not None
        return load_command(self.name).make_context(info_name, args, parent=parent, **extra)


def load_command(name: str) -> Any:
    """The command or group of this name, with its options."""
    module, _, member = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(module), member)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        found.command(name, cls=getattr(importlib.import_module(module), "GroupedCommand", TyperCommand))(function)
    command = typer.main.get_command(found)
    command.name = name
    return command
