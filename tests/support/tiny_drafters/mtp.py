"""A random MiMo, whose own prediction module drafts."""

from pathlib import Path
from typing import Any

from tests.support.request_mix import EOS, VOCAB
from tests.support.tiny_mtp import write_mimo


def write_target(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_mimo(directory, vocab_size=VOCAB, eos_token_id=EOS, seed=3, max_position_embeddings=512)


def write(directory: Path, target: Path) -> dict[str, Any]:
    return {}
