"""Progress of long work: a spinner or a bar on a terminal, removed when the work ends. Logs and files get nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_BAR_AFTER = 2.0
"""Seconds of work before a bar appears."""


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows `text` and the time that has passed, until the work in the block ends."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(text, total=None)
        yield


@contextmanager
def bar(total: int, *, text: str, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar that appears once two seconds have passed. Call the result with the number of `total` that are done."""
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda count: None
        return
    start = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(text, total=total)

    def advance(count: int) -> None:
        if time.monotonic() - start > _BAR_AFTER:
            progress.start()
        progress.update(task, completed=count)

    try:
        yield advance
    finally:
        progress.stop()
