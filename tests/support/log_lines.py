"""Records of the package's log in tests. A warning that no test expects is an error, as with Python's own warnings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("outrider")


class UnexpectedWarnings(logging.Handler):
    """Raises for each record of level WARNING or above, in the code that logs it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(f"unexpected {record.levelname} of {record.name}: {record.getMessage()}")


class _Collected(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@contextmanager
def log_lines(level: int = logging.WARNING) -> Iterator[list[str]]:
    """The lines that the package logs inside the context, `LEVEL logger: message` each; none of them is an error."""
    handlers, before = LOGGER.handlers[:], LOGGER.level
    collected = _Collected(level)
    LOGGER.handlers[:] = [collected]
    LOGGER.setLevel(level)
    try:
        yield collected.lines
    finally:
        LOGGER.handlers[:] = handlers
        LOGGER.setLevel(before)
