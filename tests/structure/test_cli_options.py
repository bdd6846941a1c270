"""The commands and options of the command line, frozen: to add one is a decision, taken here."""

from typing import Any

import typer

from outrider.cli import app

RUNS_A_MODEL = ["--attention-backend", "--device", "--max-model-len", "--model", "--speculative-config"]

COMMANDS = {
    "generate": [
        *RUNS_A_MODEL,
        "--chat",
        "--compare",
        "--max-tokens",
        "--min-p",
        "--no-chat",
        "--no-compare",
        "--seed",
        "--stop",
        "--temperature",
        "--top-k",
        "--top-p",
        "prompts",
    ],
    "info": RUNS_A_MODEL,
    "demo": [],
}


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def names_of(command: Any) -> list[str]:
    """Arguments by name, options as they are typed."""
    return sorted(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))


def test_commands_and_options_are_those_that_were_decided() -> None:
    found = {name: names_of(command) for name, command in commands().items()}
    assert found == {name: sorted(names) for name, names in COMMANDS.items()}


def test_every_command_and_option_has_a_line_of_help() -> None:
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            assert text and text.endswith("."), f"{name}: {parameter.name}"
