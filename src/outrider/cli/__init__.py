"""The command line, `outrider`: one file per command, imported when it is used. Parses options, calls, prints."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from outrider.arguments import unusable_file
from outrider.cli.command_group import CommandGroup
from outrider.cli.usage_error import UsageError, described
from outrider.core.errors import OutriderError
from outrider.core.version import VERSION
from outrider.core.waiting_threads import sleep_in_this_process


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"outrider {VERSION}")
        raise typer.Exit


app = typer.Typer(cls=CommandGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(help="Exact speculative decoding for large language models.")
def _outrider(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Holds the options before the command."""


def main() -> None:
    """Entry point. Prints a user's error in one line instead of a traceback, and exits with code 2."""
    sleep_in_this_process()
    try:
        # typer prints errors in a frame of its own otherwise; None, or the exit code that a command asked for
        code = app(standalone_mode=False)
    except UsageError as error:
        message = described(error, sys.argv[1:])
    except OutriderError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        message = unusable_file(error)
    else:
        raise SystemExit(code or 0)
    # not folded: a path must stay in one piece
    if message:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"outrider: {message}", style="red", markup=False)
    raise SystemExit(2) from None
