"""The package's log: levels, format, and where it goes. Modules log to `logging.getLogger(__name__)`.

A library leaves handlers to its application, so nothing is set up on import. The command line and a server's engine
process call `configure`; `LLM` and `AsyncLLM` call `configure_from_environment`, which acts only if OUTRIDER_LOG_LEVEL
is set. The engine process of `AsyncLLM` calls `forward`, and its records are logged in the caller's process.
"""

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable

from outrider.core.errors import ConfigError

VARIABLE = "OUTRIDER_LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error")
DEFAULT_LEVEL = "info"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ROOT = "outrider"


def resolve_level(given: str | None) -> str:
    """The level in effect: `given` (--log-level), else OUTRIDER_LOG_LEVEL, else "info". Raises ConfigError."""
    source, level = "log_level", given
    if level is None:
        source, level = VARIABLE, os.environ.get(VARIABLE) or DEFAULT_LEVEL
    if level.lower() not in LEVELS:
        raise ConfigError(f"{source}={level!r} is not a log level. Use {', '.join(LEVELS)}.")
    return level.lower()


def configure(level: str, *, others: tuple[str, ...] = ()) -> None:
    """Writes records of `level` (one of LEVELS) and above to stderr, one line each unless they carry a traceback.

    Records of the loggers named in `others` are written too, from "warning" on. A second call changes the level only.
    """
    for name, wanted in ((_ROOT, level), *((other, "warning") for other in others)):
        logger = logging.getLogger(name)
        logger.setLevel(wanted.upper())
        if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
            logger.addHandler(_StderrHandler())


def configure_from_environment() -> None:
    """Calls `configure` with the level of OUTRIDER_LOG_LEVEL, if that is set. Raises ConfigError."""
    if os.environ.get(VARIABLE):
        configure(resolve_level(None))


def effective_level() -> int:
    """The least number of a record that is logged in this process."""
    return logging.getLogger(_ROOT).getEffectiveLevel()


def forward(level: int, take: Callable[[logging.LogRecord], None]) -> None:
    """Passes records of `level` and above to `take`, in a form that can be sent to another process."""
    logger = logging.getLogger(_ROOT)
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_ForwardHandler(take))


def log_forwarded(record: logging.LogRecord) -> None:
    """Logs a record of another process as if it were made here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


class _ForwardHandler(logging.handlers.QueueHandler):
    """Makes each record plain data, as for a queue between processes."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]
        self._take = take

    def enqueue(self, record: logging.LogRecord) -> None:
        self._take(record)


class _StderrHandler(logging.Handler):
    """Writes each record to sys.stderr, whatever that is at the time."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # a full disk must not end a request
            self.handleError(record)
