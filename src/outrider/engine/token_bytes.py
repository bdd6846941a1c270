"""The bytes that each token adds to a text. A token has bytes, not a text: a character may be cut into several tokens.

Bytes of all tokens, joined, are the UTF-8 of the text that the tokens decode to, as far as that is valid.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from tokenizers import Tokenizer as Backend

_BYTE = re.compile("<0x([0-9A-F]{2})>")
"""Name of a token that stands for one byte, in vocabularies with byte fallback."""


class TokenBytes:
    """The bytes of every token of a tokenizer, special tokens included; each is found when it is first asked for.

    Some decoders drop the space in front of a text, so the first token of a text may add less than it does later.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        kinds = _kinds(json.loads(backend.decoder.__getstate__())) if backend.decoder is not None else set()
        self._has_byte_level = "ByteLevel" in kinds
        self._has_fallback = "ByteFallback" in kinds
        self._alphabet = _byte_level_alphabet()
        self._anchor = ""
        self._anchor_text = ""
        if not self._has_byte_level:
            self._anchor, self._anchor_text = self._find_anchor()
        self._found: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})  # in a text, at its beginning

    def of(self, token_id: int, *, is_first: bool = False) -> bytes:
        """The bytes that a token adds, at the beginning of a text or inside it; none for an unknown id."""
        found = self._found[is_first]
        if token_id not in found:
            token = self._backend.id_to_token(token_id)
            found[token_id] = b"" if token is None else self._bytes(token, is_first=is_first)
        return found[token_id]

    def _bytes(self, token: str, *, is_first: bool) -> bytes:
        if self._has_byte_level:
            values = [self._alphabet.get(character) for character in token]
            return token.encode() if None in values else bytes(values)  # type: ignore[arg-type]
        byte = _BYTE.fullmatch(token) if self._has_fallback else None
        if byte is not None and int(byte[1], 16) >= 0x80:
            return bytes([int(byte[1], 16)])
        if is_first:
            return self._decode([token]).encode()
        text = self._decode([self._anchor, token])
        is_plain = bool(self._anchor) and text.startswith(self._anchor_text)
        return (text[len(self._anchor_text) :] if is_plain else self._decode([token])).encode()

    def _decode(self, tokens: list[str]) -> str:
        decoder = self._backend.decoder
        text: str = decoder.decode(tokens) if decoder is not None else "".join(tokens)
        return text

    def _find_anchor(self) -> tuple[str, str]:
        """A token that can precede others, and its text."""
        for token in sorted(self._backend.get_vocab(with_added_tokens=False)):
            text = self._decode([token])
            if text.isascii() and text.isalpha() and self._decode([token, token]).startswith(text):
                return token, text
        return "", ""


def _kinds(decoder: dict[str, Any]) -> set[str]:
    """Kinds of a decoder and of those that it is made of."""
    return {decoder["type"]}.union(*(_kinds(part) for part in decoder.get("decoders", ())))


def _byte_level_alphabet() -> dict[str, int]:
    """Byte by character of a byte-level vocabulary: printable ones stand for themselves, then come the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}


def readable(data: bytes) -> str:
    """The text of a token's bytes; a byte that is only a part of a character is written as \\xe9."""
    return data.decode("utf-8", "backslashreplace")


def is_text(data: bytes) -> bool:
    """True for whole characters."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def prompt_pieces(
    token_bytes: TokenBytes, token_ids: Sequence[int], *, special_ids: Collection[int], text: str
) -> list[bytes]:
    """The bytes that each token of a prompt adds to `text`, the prompt as it was given.

    A special token is a part of the text where the text spells it, and not where the tokenizer added it.
    """
    pieces, has_begun = [], False
    for token_id in token_ids:
        pieces.append(token_bytes.of(token_id, is_first=not has_begun))
        has_begun = has_begun or token_id not in special_ids
    specials = [place for place, token_id in enumerate(token_ids) if token_id in special_ids]
    wanted = text.encode(errors="replace")
    shown = pieces
    for added in map(frozenset, ((), specials[:1], specials[:2], (*specials[:1], *specials[-1:]), specials)):
        shown = [b"" if place in added else piece for place, piece in enumerate(pieces)] if added else pieces
        if b"".join(shown) == wanted:
            break
    return shown
