"""The verdict that ends a run with and without speculation."""

from collections.abc import Sequence

import typer
from rich.console import Console

from outrider import show
from outrider.core.outputs import RequestOutput


def print_verdict(console: Console, outputs: Sequence[RequestOutput], plain: Sequence[RequestOutput]) -> None:
    """Print whether two runs gave the same; exit with code 1 if they did not."""
    console.print(show.verdict(outputs, plain))
    if show.differences(outputs, plain):
        raise typer.Exit(1)
