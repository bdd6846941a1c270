"""The end of a run with and without speculation: the time of both, and the verdict."""

import time
from collections.abc import Callable, Sequence

import typer
from rich.console import Console

from outrider import show
from outrider.core.outputs import RequestOutput


def print_verdict(console: Console, outputs: Sequence[RequestOutput], plain: Sequence[RequestOutput]) -> None:
    """Print whether two runs gave the same; exit with code 1 if they did not."""
    console.print(show.verdict(outputs, plain))
    if show.differences(outputs, plain):
        raise typer.Exit(1)


def timed(run: Callable[[], list[RequestOutput]]) -> tuple[list[RequestOutput], float]:
    """Outputs of a run, and its seconds."""
    start = time.monotonic()
    outputs = run()
    return outputs, time.monotonic() - start
