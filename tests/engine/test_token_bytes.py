"""Bytes of tokens: joined they are the UTF-8 of the text, also where tokens are parts of characters."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from outrider.core.outputs import Logprob
from outrider.core.sampling_params import SamplingParams
from outrider.engine.token_bytes import is_text, readable
from outrider.engine.token_names import TokenNames
from outrider.engine.tokenizer import Tokenizer

from .tokenizers_made_here import SENTENCES

NAMES = ["byte_level", "byte_fallback"]


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def joined(tokenizer: Tokenizer, token_ids: list[int]) -> bytes:
    return b"".join(tokenizer.token_bytes.of(token_id, is_first=index == 0) for index, token_id in enumerate(token_ids))


@pytest.mark.parametrize("text", [*SENTENCES, "a", " a", "é🎉日", "\u0000 \u007f", "\N{REPLACEMENT CHARACTER}"])
def test_joined_bytes_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert joined(tokenizer, token_ids).decode() == tokenizer.decode(token_ids) in (text, text.lstrip())


def test_joined_bytes_of_random_ids_decode_like_the_tokenizer(byte_level: Tokenizer) -> None:
    rng = random.Random(4)
    for _ in range(200):
        token_ids = [rng.choice(byte_level.plain_ids) for _ in range(rng.randrange(1, 30))]
        assert joined(byte_level, token_ids).decode(errors="replace") == byte_level.decode(token_ids)


def test_a_byte_of_a_character_is_that_byte(tokenizer: Tokenizer) -> None:
    """Byte fallback names it <0xE9>, byte-level vocabularies have a character for it."""
    pieces = [
        tokenizer.token_bytes.of(token_id) for token_id in tokenizer.encode("\U00020bb7", add_special_tokens=False)
    ]
    assert b"".join(pieces).endswith("\U00020bb7".encode())
    assert any(not is_text(piece) for piece in pieces)
    assert readable(b"a\xe9") == r"a\xe9" and readable("é".encode()) == "é"


def test_special_and_unknown_ids(tokenizer: Tokenizer) -> None:
    eos = tokenizer._tokenizer.eos_token
    assert tokenizer.token_bytes.of(tokenizer._tokenizer.eos_token_id) == eos.encode()
    assert tokenizer.token_bytes.of(10**6) == b""


@pytest.mark.parametrize(
    ("decoder", "tokens", "text"),
    [
        (decoders.WordPiece(), ["play", "##ing", "play"], "playing play"),
        (decoders.Metaspace(), ["▁play", "ing", "▁play"], "playing play"),
        (decoders.Sequence([decoders.ByteLevel()]), ["play", "Ġplay", "Ã", "©"], "play playé"),
        (
            decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]),
            ["play", "<0xC3>", "<0xA9>", "<0x20>"],
            "playé ",
        ),
    ],
)
def test_decoders_of_other_families(tmp_path: Path, decoder: Any, tokens: list[str], text: str) -> None:
    backend = Backend(models.WordLevel({token: index for index, token in enumerate(dict.fromkeys(tokens))}, tokens[0]))
    backend.decoder = decoder
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    token_ids = [backend.token_to_id(token) for token in tokens]
    assert joined(tokenizer, token_ids).decode() == tokenizer.decode(token_ids) == text


def test_a_prompt_has_the_special_tokens_that_its_text_spells(byte_fallback: Tokenizer) -> None:
    bos, letter, space_a = (byte_fallback._backend.token_to_id(token) for token in ("<s>", "b", "▁a"))
    assert byte_fallback.prompt_pieces([bos, space_a, letter], "ab") == [b"", b"a", b"b"]
    spelled = byte_fallback.prompt_pieces([bos, letter, bos], "b<s>")
    assert spelled == [b"", b"b", b"<s>"], "the first was added, the last one is in the text"
    assert byte_fallback.prompt_pieces([bos, letter, bos], "<s>b<s>") == [b"<s>", b"b", b"<s>"]
    assert byte_fallback.prompt_pieces([bos, letter, bos], "b") == [b"", b"b", b""]


@pytest.mark.parametrize("skips", [True, False])
def test_the_names_of_an_output_join_to_its_text_in_pieces_too(tokenizer: Tokenizer, skips: bool) -> None:
    eos = tokenizer._tokenizer.eos_token_id
    token_ids = [eos, *tokenizer.encode("a é🎉日", add_special_tokens=False), eos]
    places = [{token_id: Logprob(logprob=-1.0, rank=1), eos: Logprob(logprob=-2.0, rank=2)} for token_id in token_ids]
    state: Any = SimpleNamespace(
        output_token_ids=token_ids, logprobs=places, params=SamplingParams(skip_special_tokens=skips)
    )
    names = TokenNames(tokenizer)
    whole = names.output(state)
    assert [entry for begin in range(len(token_ids)) for entry in names.output(state, begin)[:1]] == whole
    data = b"".join(place[token_id].token_bytes or b"" for place, token_id in zip(whole, token_ids, strict=True))
    assert data.decode() == tokenizer.decode(token_ids, skip_special_tokens=skips)
    assert all(place[eos].decoded_token == tokenizer._tokenizer.eos_token for place in whole)
