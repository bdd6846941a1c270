"""docs/structure.md has one line for each folder of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "outrider"
FOLDERS = sorted({path.parent.relative_to(SOURCE) for path in SOURCE.rglob("*.py")} - {Path(".")})


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_folder_is_named_in_the_structure_page(folder: Path) -> None:
    lines = (ROOT / "docs" / "structure.md").read_text().splitlines()
    name = re.compile(rf"(^|[\s`/(|]){re.escape(folder.name)}/")
    assert [line for line in lines if name.search(line)], f"no line of docs/structure.md has `{folder.name}/`"
