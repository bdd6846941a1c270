"""docs/troubleshooting.md quotes messages that exist, and has every one that a user meets without a mistake: those of
`UnsupportedError` and `EngineDeadError`, and every status of the server. Others name the value and remedy
themselves; the page lists all classes.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from outrider.core import errors as core_errors
from outrider.core.errors import OutriderError
from outrider.gate import errors as gate_errors
from outrider.server.openapi import _ERRORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
LISTED = ("UnsupportedError", "EngineDeadError")
NOT_SENT = {499}
"""Statuses that no client gets: of one that has disconnected."""


@cache
def trees() -> dict[str, ast.Module]:
    """The package's files by their path."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted((ROOT / "src").rglob("*.py"))}


@cache
def strings() -> str:
    """All constants in strings of the package, one per line."""
    nodes = [node for tree in trees().values() for node in ast.walk(tree)]
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def quoted(page: str) -> list[str]:
    """Messages in the first columns."""
    return re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)


def missing(page: str) -> list[str]:
    """Pieces between "…" in the first columns that no string of the package has."""
    pieces = [piece.strip() for message in quoted(page) for piece in message.split("…")]
    return [piece for piece in pieces if piece not in strings()]


def messages(name: str) -> Iterator[tuple[str, str]]:
    """(place, message) of every error of a class that is made with a text of its own; values are "…"."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name and node.args:
                parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
                texts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts]
                if any(isinstance(part, ast.Constant) for part in parts):
                    yield f"{path}:{node.lineno}", "".join(texts)


def is_on(page: str, message: str) -> bool:
    """True if the page quotes a message of which this one is an example."""
    return any(
        re.search(".*".join(re.escape(piece.strip()) for piece in entry.split("…")), message) for entry in quoted(page)
    )


def test_every_quoted_message_exists() -> None:
    assert len(quoted(PAGE.read_text())) > 25
    assert missing(PAGE.read_text()) == []


def test_a_message_that_no_longer_exists_is_found() -> None:
    assert missing("| `is not in the cache … was never written anywhere` | x |\n") == ["was never written anywhere"]


@pytest.mark.parametrize("name", LISTED)
def test_the_page_has_every_message_of_these_classes(name: str) -> None:
    found = list(messages(name))
    assert len(found) > 3
    assert [entry for entry in found if not is_on(PAGE.read_text(), entry[1])] == []
    assert not is_on(PAGE.read_text(), "…: the moon is in the wrong phase")


def test_the_page_has_every_class() -> None:
    kinds = [*vars(core_errors).values(), *vars(gate_errors).values()]
    names = {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, OutriderError)}
    assert len(names) > 5
    assert names - {"OutriderError"} <= set(quoted(PAGE.read_text()))


def statuses() -> set[int]:
    """Statuses of errors that the server's source names."""
    found = set(_ERRORS)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if "/server/" not in path or not isinstance(node, ast.Call):
                continue
            values = [keyword.value for keyword in node.keywords if keyword.arg in ("status", "status_code")]
            if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("_refuse", "HTTPException"):
                values += node.args[:1]
            found |= {value.value for value in values if isinstance(value, ast.Constant) and value.value is not None}
    return {int(status) for status in found if int(status) >= 400}


def test_the_page_has_every_status_of_the_server() -> None:
    listed = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE.read_text(), flags=re.MULTILINE)}
    assert {401, 403, 408, 413, 429, 431, 500, 503} <= statuses()
    assert listed == (statuses() | {405}) - NOT_SENT
