"""Reads the lists of this folder: `clauses.txt`, `phrases.txt`, `words.txt`.

    # a line that begins with "# " is a comment; it and blank lines are ignored
    [name]
    an entry
    another entry

A list begins with its name in square brackets and ends at the next name. Each line is one entry. In a list of words
entries are separated by blanks instead, and lines mean nothing.
"""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_NAME = re.compile(r"\[(\w+)\]")


def data_lines(path: Path) -> list[str]:
    """Lines of a data file without comments, blank lines and trailing blanks."""
    lines = (line.rstrip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("# ")]


@cache
def _lists(file: str) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    entries: list[str] | None = None
    for line in data_lines(FOLDER / file):
        if match := _NAME.fullmatch(line):
            if match[1] in lists:
                raise ValueError(f"{file}: list [{match[1]}] is defined twice. Join the two.")
            entries = lists[match[1]] = []
        elif entries is None:
            raise ValueError(f"{file}: {line!r} belongs to no list. Put a [name] above it.")
        else:
            entries.append(line)
    return lists


def read_lines(file: str, name: str) -> list[str]:
    """Entries of the list `name`, one per line, in the order of the file."""
    lists = _lists(file)
    if name not in lists:
        raise ValueError(f"{file} has no list [{name}]. It has {', '.join(lists)}.")
    return list(lists[name])


def read_words(file: str, name: str) -> list[str]:
    """Entries of the list `name`, separated by blanks, in the order of the file."""
    return " ".join(read_lines(file, name)).split()
