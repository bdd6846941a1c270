"""docs/troubleshooting.md quotes messages that exist: each piece of them is in a string of the source."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"


@cache
def strings() -> str:
    """All constants in strings of the package, one per line."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "src").rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def missing(page: str) -> list[str]:
    """Pieces between "…" in the first columns that no string of the package has."""
    messages = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(messages) > 15 or page != PAGE.read_text()
    pieces = [piece.strip() for message in messages for piece in message.split("…")]
    return [piece for piece in pieces if piece not in strings()]


def test_every_message_exists() -> None:
    assert missing(PAGE.read_text()) == []


def test_a_message_that_no_longer_exists_is_found() -> None:
    assert missing("| `is not in the cache … was never written anywhere` | x |\n") == ["was never written anywhere"]
