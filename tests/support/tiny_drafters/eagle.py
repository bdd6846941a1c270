"""A random EAGLE-1 head in the format of its release."""

from pathlib import Path
from typing import Any

from tests.support.request_mix import VOCAB
from tests.support.tiny_heads import random_eagle_head


def write(directory: Path, target: Path) -> dict[str, Any]:
    random_eagle_head(directory, vocab_size=VOCAB)
    return {"model": str(directory)}
