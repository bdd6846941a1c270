"""Text of a grammar is written with ordinary tokens, byte for byte, and an output ends only where the grammar does."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from outrider import StructuredOutputsParams
from outrider.engine.tokenizer import Tokenizer
from tests.support.grammar_writer import GrammarWriter

from .tokenizers_made_here import save_byte_fallback, save_byte_level


def save_composing(directory: Path) -> Path:
    """Like Qwen's: composes letters and their marks before it looks for tokens."""
    save_byte_level(directory)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    tokenizer.save_pretrained(directory)
    return directory


def writer(save: Callable[[Path], Path], directory: Path) -> GrammarWriter:
    end = 2 if save is save_byte_fallback else 0
    tokenizer = Tokenizer(save(directory))
    return GrammarWriter(tokenizer, vocab_size=420 if end == 0 else 320, eos_token_ids=(end,))


TEXTS = ["<|end|>", "a<|end|>b", "<|user|>", "</s>", "<s>x", "cafe\u0301", "<|end", "<0x41>", "e\u0301e\u0301"]


def asked_for(text: str) -> list[tuple[Any, str]]:
    """Every form of a grammar that has one text only, and that text."""
    closed = {"additionalProperties": False}
    return [
        ({"choice": [text]}, text),
        ({"regex": "".join(f"[{letter}]" for letter in text)}, text),
        ({"grammar": f"start: {json.dumps(text)}"}, text),
        ({"grammar": f"root ::= {json.dumps(text, ensure_ascii=False)}"}, text),
        ({"json": {"const": text}}, json.dumps(text, ensure_ascii=False)),
        ({"json": {"enum": [text]}}, json.dumps(text, ensure_ascii=False)),
        (
            {"json": {"properties": {text: {"const": 1}}, "required": [text], "type": "object"} | closed},
            json.dumps({text: 1}, ensure_ascii=False, separators=(",", ":")),
        ),
    ]


@pytest.mark.parametrize("save", [save_byte_level, save_byte_fallback, save_composing])
def test_any_text_is_written_with_ordinary_tokens(save: Callable[[Path], Path], tmp_path: Path) -> None:
    made = writer(save, tmp_path)
    special = {0, 1} if save is not save_byte_fallback else {0, 1, 2}
    for text in TEXTS:
        for fields, wanted in asked_for(text):
            if "json" in fields:
                fields = {"json": fields["json"] | {"x-guidance": {"whitespace_flexible": False}}}
            written = made.write(StructuredOutputsParams(**fields), random.Random(1))
            assert (written.end, written.text) == ("stop", wanted), (fields, written)
            assert special.isdisjoint(written.token_ids), (fields, written)


def test_free_text_has_no_special_tokens(tmp_path: Path) -> None:
    made = writer(save_byte_level, tmp_path)
    dice = random.Random(3)
    for _ in range(20):
        written = made.write(StructuredOutputsParams(regex=r"(<\|end\|>|[^a])*"), dice, max_tokens=60)
        assert {0, 1}.isdisjoint(written.token_ids)
