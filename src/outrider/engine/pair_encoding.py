"""Token ids of a text, or of two texts in one prompt, cut to a number of tokens before special tokens are added.

The result is that of transformers' tokenizers with truncation=True, but nothing is set in the tokenizer, so threads may
share it.
"""

from dataclasses import dataclass

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from outrider.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of a prompt, special tokens included."""

    token_ids: list[int]
    type_ids: list[int]
    """The part of the prompt, 0 or 1, that each token belongs to, as the tokenizer says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Limits of a prompt."""

    max_tokens: int | None = None
    """Tokens of the whole prompt, special ones included; of two texts the longer one is cut. None: no limit."""
    side: str = "right"
    """The end of a text at which tokens are cut: "left" or "right"."""
    max_first: int = 0
    """Tokens of the first text, always cut at its end; 0: no limit."""
    max_second: int = 0
    """Likewise of the second."""


def encode(
    backend: Backend, first: str, second: str | None = None, *, cut: Cut | None = None, add_special_tokens: bool = True
) -> Encoded:
    """Ids of a text, or of two. Raises RequestError where a limit leaves no token of a text."""
    cut = cut or Cut()
    texts = [first] if second is None else [first, second]
    parts: list[Encoding] = [backend.encode(text, add_special_tokens=False) for text in texts]
    for part, most in zip(parts, (cut.max_first, cut.max_second), strict=False):
        if most and len(part.ids) > most:
            part.truncate(most)
    if cut.max_tokens is not None:
        num_added = backend.num_special_tokens_to_add(len(parts) == 2) if add_special_tokens else 0
        left = cut.max_tokens - num_added
        if left < len(parts):
            raise RequestError(
                f"truncate_prompt_tokens={cut.max_tokens} leaves no text beside {num_added} special tokens. Raise it to"
                f" {num_added + len(parts)} or more."
            )
        for part, most in zip(parts, _shares([len(part.ids) for part in parts], left), strict=True):
            if len(part.ids) > most:
                part.truncate(most, direction=cut.side)
    pair = parts[1] if len(parts) == 2 else None
    whole = backend.post_process(parts[0], pair, add_special_tokens=add_special_tokens)
    return Encoded(list(whole.ids), list(whole.type_ids))


def cut_text(backend: Backend, text: str, max_tokens: int) -> str:
    """The text up to the end of its first `max_tokens` tokens; all of it where it has no more, or with 0."""
    if not max_tokens:
        return text
    encoding = backend.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= max_tokens:
        return text
    return text[: encoding.offsets[max_tokens - 1][1]]


def _shares(lengths: list[int], left: int) -> list[int]:
    """Tokens of each text that fit into `left`: the longer of two is cut until both are equally long."""
    if len(lengths) == 1 or sum(lengths) <= left:
        return lengths if len(lengths) == 2 else [left]
    shorter = min(lengths)
    if shorter <= left // 2:
        longest = left - shorter
        return [min(length, longest) if length > shorter else length for length in lengths]
    half = left // 2
    return [half, left - half] if lengths[0] <= lengths[1] else [left - half, half]
