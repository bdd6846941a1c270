"""Incremental text against the text of all tokens at once: random ids, broken UTF-8, special and unknown ids."""

import random
from pathlib import Path

import pytest

from outrider.core.errors import CheckpointError
from outrider.engine.tokenizer import OwnTexts, Tokenizer

from .tokenizers_made_here import SENTENCES

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class NoTexts(OwnTexts):
    """Every token with text is looked at closely, with its neighbours: the slow way."""

    def __missing__(self, token_id: int) -> str | None:
        return None if self._tokenizer.has_text(token_id) else ""


def pieces_of(tokenizer: Tokenizer, token_ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(token_id) for token_id in token_ids), stream.flush()]


def byte_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """One token per byte of a byte-fallback tokenizer."""
    first = tokenizer._backend.token_to_id("<0x00>")
    assert first is not None
    return [first + byte for byte in data]


@pytest.mark.parametrize("seed", range(8))
def test_pieces_add_up_to_the_whole_text_of_random_ids(byte_level: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    size = len(byte_level._tokenizer)
    for _ in range(60):
        token_ids = [rng.randrange(size + 3) for _ in range(rng.randrange(1, 50))]
        pieces = pieces_of(byte_level, token_ids)
        assert "".join(pieces) == byte_level.decode(token_ids), f"ids {token_ids}"


def test_pieces_add_up_to_the_whole_text_of_single_bytes(byte_level: Tokenizer) -> None:
    """Valid characters of one to four bytes, cut ones, and bytes that are never valid."""
    rng = random.Random(0)
    letters = [character.encode() for character in "aß好🙂"] + [
        b"\xff",
        b"\xc0",
        b"\x80",
        b"\xf0\x9f",
        b"\xe4\xbd",
    ]
    alphabet = {byte: byte_level.encode(chr(byte))[0] for byte in range(128)}
    table = byte_level._backend
    for token, token_id in table.get_vocab().items():
        raw = table.decode([token_id])
        if len(token) == 1 and raw == REPLACEMENT:
            alphabet.setdefault(_byte_of(token), token_id)
    for _ in range(300):
        data = b"".join(rng.choices(letters, k=rng.randrange(1, 12)))
        token_ids = [alphabet[byte] for byte in data]
        pieces = pieces_of(byte_level, token_ids)
        assert "".join(pieces) == data.decode(errors="replace") == byte_level.decode(token_ids), f"{data!r}"


def _byte_of(token: str) -> int:
    """The byte that a one-character token of a byte-level vocabulary stands for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    code = ord(token)
    return others[code - 256] if code >= 256 else code


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_pieces_of_valid_text_are_the_text(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    for sentence in SENTENCES:
        token_ids = tokenizer.encode(sentence, add_special_tokens=False)
        pieces = pieces_of(tokenizer, token_ids)
        assert "".join(pieces) == sentence
        assert pieces[-1] == "", "nothing is held back at the end of valid text"
        assert REPLACEMENT not in "".join(pieces)


def test_whole_text_before_an_unfinished_character_is_given_at_once(byte_level: Tokenizer) -> None:
    """A token may hold the end of a word and the first bytes of a character: the word must not wait."""
    tokens = [byte_level.decode([token_id]) for token_id in range(len(byte_level._tokenizer))]
    mixed = [
        token_id for token_id, text in enumerate(tokens) if text.endswith(REPLACEMENT) and text.rstrip(REPLACEMENT)
    ]
    assert mixed, "the tokenizer has such tokens"
    for token_id in mixed:
        stream = byte_level.stream()
        assert stream.push(token_id) == tokens[token_id].rstrip(REPLACEMENT)
        assert stream.flush() == REPLACEMENT


def test_character_is_given_with_its_last_byte(byte_fallback: Tokenizer) -> None:
    assert pieces_of(byte_fallback, byte_ids(byte_fallback, "🙂".encode())) == ["", "", "", "🙂", ""]
    assert pieces_of(byte_fallback, byte_ids(byte_fallback, "🙂".encode()[:3])) == ["", "", "", REPLACEMENT * 3]


def test_broken_bytes_behind_a_character_are_no_error(byte_fallback: Tokenizer) -> None:
    """Byte fallback renders a run of bytes as a whole: an invalid byte also makes its valid neighbours invalid."""
    letter = byte_fallback.encode("b", add_special_tokens=False)[-1]
    token_ids = [*byte_ids(byte_fallback, "é".encode() + b"\xc3"), letter]
    pieces = pieces_of(byte_fallback, token_ids)
    assert pieces[:2] == ["", "é"]
    assert "".join(pieces).startswith("é" + REPLACEMENT)


@pytest.mark.parametrize("seed", range(4))
def test_random_ids_of_a_byte_fallback_tokenizer_are_no_error(byte_fallback: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    size = len(byte_fallback._tokenizer)
    for _ in range(100):
        token_ids = [rng.choice((rng.randrange(size), 3 + 0xE4, 3 + 0xBD, 3 + 0xA0)) for _ in range(20)]
        given = iter("".join(pieces_of(byte_fallback, token_ids)))
        whole = byte_fallback.decode(token_ids).replace(REPLACEMENT, "")
        assert all(character in given for character in whole), f"a character is lost: {token_ids}"


def test_spaces_between_words_are_kept(byte_fallback: Tokenizer) -> None:
    token_ids = byte_fallback.encode("a the b", add_special_tokens=False)
    pieces = pieces_of(byte_fallback, token_ids)
    assert "".join(pieces) == "a the b"
    assert len(pieces) > 3


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_special_and_unknown_ids_give_nothing(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    size = len(tokenizer._tokenizer)
    silent = [*tokenizer._special_ids, size, size + 1, 10**6]
    assert all(pieces_of(tokenizer, [token_id]) == ["", ""] for token_id in silent)
    assert tokenizer.decode(silent) == ""
    words = tokenizer.encode("a b ab", add_special_tokens=False)
    mixed = [entry for token_id in words for entry in (silent[0], token_id, size)]
    assert "".join(pieces_of(tokenizer, mixed)) == tokenizer.decode(mixed) == "a b ab"


def test_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer.json.* pass skip_tokenizer_init=True"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_texts_that_tokens_have_of_their_own_change_nothing(name: str, request: pytest.FixtureRequest) -> None:
    """Random ids, special and unknown ones too: one by one, in batches, and by decoding everything, piece by piece."""
    tokenizer = request.getfixturevalue(name)
    ids = [*range(270), 10**6, *tokenizer.encode("".join(SENTENCES))]
    rng = random.Random(5)
    num_own = 0
    for _ in range(60):
        tokens = [rng.choice(ids) for _ in range(rng.randrange(1, 60))]
        plain, fast, batched = tokenizer.stream(), tokenizer.stream(), tokenizer.stream()
        plain._own_texts = NoTexts(tokenizer)
        expected = [plain.push(token_id) for token_id in tokens]
        assert [fast.push(token_id) for token_id in tokens] == expected
        start = 0
        while start < len(tokens):
            count = rng.randrange(1, 5)
            assert batched.extend(tokens[start : start + count]) == "".join(expected[start : start + count])
            start += count
        assert plain.flush() == fast.flush() == batched.flush()
        num_own += sum(bool(tokenizer.own_texts()[token_id]) for token_id in tokens)
    assert (num_own > 500) == (name == "byte_level"), "texts of their own are for byte-level tokenizers only"
