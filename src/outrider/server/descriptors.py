"""File descriptors of the server's process: how many connections they allow, and the log if all are used."""

import asyncio
import logging
import resource
import time
from typing import Any

_RESERVED = 64
"""Descriptors for everything but connections: the engine's socket, an engine that is started again, files, the log."""
_MOST = 1 << 16
_MAX_BACKLOG = 2048
_QUIET_SECONDS = 60.0
_log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Raises this process's soft limit as far as it may, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def backlog(num_descriptors: int) -> int:
    """Number of connections that may wait to be accepted. The event loop accepts that many at once before it closes one
    that is too many, so each needs a descriptor."""
    return min(_MAX_BACKLOG, num_descriptors // 4)


def max_connections(num_descriptors: int, *, asked: int | None) -> int:
    """Number of connections that may be open: as many as descriptors allow, and not more than `asked`."""
    most = max(1, num_descriptors - backlog(num_descriptors) - _RESERVED)
    return most if asked is None else min(asked, most)


class LoopErrors:
    """Logs errors of the event loop; one that comes again and again, like that of accept(), once a minute."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handles one error, as `loop.set_exception_handler` requires."""
        if "out of system resource" not in context.get("message", ""):
            loop.default_exception_handler(context)
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _QUIET_SECONDS
            _log.warning(
                "no connection can be accepted: %s. Raise the limit on open files (ulimit -n), or lower "
                "--limit-concurrency. Logged at most once a minute.",
                context.get("exception"),
            )
