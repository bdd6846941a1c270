"""A random EAGLE-3 head with a vocabulary of its own, in the format of the speculators library."""

from pathlib import Path
from typing import Any

from tests.support.request_mix import VOCAB
from tests.support.tiny_heads import random_head, save_speculators


def write(directory: Path, target: Path) -> dict[str, Any]:
    return {"model": str(save_speculators(random_head(vocab_size=VOCAB, draft_vocab_size=40), directory))}
