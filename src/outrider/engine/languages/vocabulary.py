"""The vocabulary in llguidance's form, where text is always spelled with ordinary tokens.

llguidance writes bytes that a grammar forces with the model's own tokenizer. That one reads the spelling of a special
token as the token itself, and may normalise a text, so that its tokens have other bytes. Both are caught here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # llguidance itself is imported for the first grammar only
    from llguidance import LLTokenizer

_NO_TEXT = b"\xff"
"""First byte of a token without text in llguidance's tables; no UTF-8 text holds it."""


def exact_vocabulary(tokenizer: "LLTokenizer", eos_token_ids: Sequence[int]) -> "LLTokenizer":
    """A vocabulary of the same tokens that writes each forced text exactly."""
    from llguidance import LLTokenizer

    return LLTokenizer(_Spelling(tokenizer, eos_token_ids), eos_token=list(eos_token_ids))  # type: ignore[arg-type]


class _Spelling:
    """Answers llguidance, which asks for the bytes of each token and for the tokens of a text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: "LLTokenizer", eos_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_token_ids[0]
        ends = set(eos_token_ids)  # never text, whatever kind of token it is
        self.special_token_ids = [
            token_id
            for token_id in range(tokenizer.vocab_size)
            if token_id in ends or tokenizer.is_special_token(token_id)
        ]
        self._special_ids = frozenset(self.special_token_ids)
        self.tokens = [
            (_NO_TEXT if token_id in self._special_ids else b"") + tokenizer.decode_bytes([token_id])
            for token_id in range(tokenizer.vocab_size)
        ]

    def __call__(self, text: str) -> list[int]:
        token_ids: list[int] = self._tokenizer.tokenize_str(text)
        is_ordinary = self._special_ids.isdisjoint(token_ids)
        if is_ordinary and b"".join(map(self.tokens.__getitem__, token_ids)) == text.encode():
            return token_ids
        return list(self._tokenizer.greedy_tokenize(text))
