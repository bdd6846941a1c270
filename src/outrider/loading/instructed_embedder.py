"""Tells checkpoints that make vectors behind an instruction from ordinary ones, and finds the ids of their mark."""

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from outrider.core.errors import CheckpointError
from outrider.core.pooler_config import MEAN, InstructedEmbedder, PoolerConfig, embedder
from outrider.core.pooling import TextMark
from outrider.loading.names import is_named


def read_instructed(directory: Path, spec: InstructedEmbedder, *, architecture: str) -> PoolerConfig | None:
    """The pooler of such a model: the mean over the text; None if the model in `directory` is not one."""
    if architecture not in spec.architectures and not is_named(directory, spec.marks):
        return None
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no tokenizer.json, and the model's text begins behind a mark. Add it.")
    tokenizer = Tokenizer.from_file(str(path))
    before = "a\n"
    inner, alone = (_ids(tokenizer, text) for text in (before + spec.text_mark, before.rstrip()))
    if inner[: len(alone)] != alone:
        raise CheckpointError(f"{path}: the tokens of {spec.text_mark!r} depend on the text before it.")
    leading = tuple(tokenizer.encode("").ids)
    mark = TextMark(first=_ids(tokenizer, spec.text_mark), inner=inner[len(alone) :], leading=leading)
    return replace(embedder(pooling=MEAN), text_mark=mark)


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)
