"""docs/structure.md has one line for each folder of the package, and no line for a removed folder."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "outrider"
NOT_SOURCE = {"__pycache__"}


def folders() -> set[str]:
    """Every folder of the package that holds a file, with a slash at its end."""
    paths = (path.parent.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file())
    return {f"{path.as_posix()}/" for path in paths if path != Path(".") and not NOT_SOURCE & set(path.parts)}


def folders_told(page: str) -> Counter[str]:
    """Folders with a line of their own, and how many lines each has."""
    return Counter(re.findall(r"^- `([^`]+/)` – ", page, re.MULTILINE))


def test_the_page_has_one_line_for_each_folder_and_no_other() -> None:
    assert folders_told((ROOT / "docs" / "structure.md").read_text()) == Counter(folders())


def test_a_missing_a_second_and_a_dead_line_are_seen() -> None:
    page = (ROOT / "docs" / "structure.md").read_text()
    for name in folders():
        (line,) = [line for line in page.splitlines() if line.startswith(f"- `{name}` – ")]
        assert folders_told(page.replace(line, "")) != Counter(folders()), name
        assert folders_told(page + f"\n{line}\n") != Counter(folders()), name
    assert folders_told(page + "\n- `gone/` – was here.\n") != Counter(folders())
