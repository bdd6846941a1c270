"""A draft model that often agrees with the target: the target with noise on its weights."""

from pathlib import Path
from typing import Any

from tests.support.tiny_models import write_draft_model


def write(directory: Path, target: Path) -> dict[str, Any]:
    write_draft_model(directory, target, spread=0.1)
    return {"model": str(directory)}
