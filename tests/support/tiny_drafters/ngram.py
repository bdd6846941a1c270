"""N-gram lookup, which has no weights."""

from pathlib import Path
from typing import Any


def write(directory: Path, target: Path) -> dict[str, Any]:
    return {"prompt_lookup_min": 1}
