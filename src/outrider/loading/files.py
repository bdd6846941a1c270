"""Kinds of files in a directory of a model, which somebody else made. Only regular files and links to them are opened:
a pipe would be waited for, and a device read, for ever."""

import stat
from pathlib import Path

from outrider.core.errors import CheckpointError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_kinds(directory: Path) -> None:
    """Raises CheckpointError unless each entry of `directory` is a regular file or a directory. Links are followed,
    because caches of a hub are made of them; one that leads nowhere counts as absent."""
    for path in sorted(directory.iterdir()):
        check_kind(path)


def check_kind(path: Path) -> None:
    """Raises CheckpointError if `path` leads to something other than a regular file or a directory."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{path} cannot be looked at: {error.strerror}. Download it again.") from error
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise CheckpointError(f"{path} is {kind}, not a file. Remove it, or download the directory again.")
