"""Log-probabilities in the three response formats: completions, chat completions, prompts."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outrider.core.outputs import Logprob
from outrider.engine.token_bytes import is_text, readable

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot express (vLLM's value)."""

Places = Sequence[Mapping[int, Logprob] | None]
"""One entry per token: log-probabilities by token id; None for the first token of a prompt."""


def _value(entry: Logprob) -> float:
    return max(entry.logprob, LOWEST)


def _bytes(entry: Logprob) -> bytes:
    return entry.token_bytes or b""


class TextOffsets:
    """Places of tokens in a text, in characters, for tokens that come one by one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_characters = 0  # whole ones

    def place(self, piece: bytes) -> int:
        """Adds a token's bytes. Returns the index of the character in which they begin."""
        self._num_characters += len(self._decoder.decode(piece[:1]))
        is_within = not piece or bool(self._decoder.getstate()[0])
        begin = self._num_characters - (0 if is_within else 1)
        self._num_characters += len(self._decoder.decode(piece[1:]))
        return begin


def completion_logprobs(
    token_ids: Sequence[int], places: Places, *, offsets: TextOffsets, as_ids: bool, prompt_pieces: Sequence[bytes] = ()
) -> dict[str, Any]:
    """OpenAI's four lists for `token_ids`.

    offsets: those of the tokens before, which go on here. prompt_pieces: bytes of the tokens at the beginning that
    belong to the prompt, whose first one has no log-probabilities.
    """
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    begins: list[int] = []
    for index, (token_id, place) in enumerate(zip(token_ids, places, strict=True)):
        if place is None:
            piece = prompt_pieces[index]
            tokens.append(f"token_id:{token_id}" if as_ids else _name(piece))
            values.append(None)
            tops.append(None)
        else:
            piece = prompt_pieces[index] if index < len(prompt_pieces) else _bytes(place[token_id])
            names = _names(token_id, place, as_ids=as_ids)
            tokens.append(names[token_id])
            values.append(_value(place[token_id]))
            tops.append({names[key]: _value(entry) for key, entry in place.items()})
        begins.append(offsets.place(piece))
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": begins}


def _names(token_id: int, place: Mapping[int, Logprob], *, as_ids: bool) -> dict[int, str]:
    """A name for each token of a place, none twice: the token's own first. Tokens of the same text have their ids."""
    names: dict[int, str] = {}
    for key in (token_id, *place):
        entry = place[key]
        name = _name(entry.token_bytes, entry.decoded_token)
        is_taken = as_ids or name in names.values()
        names.setdefault(key, f"token_id:{key}" if is_taken else name)
    return names


def _name(data: bytes | None, text: str | None = None) -> str:
    """A token's text in OpenAI's form for completions: bytes that are a part of a character begin with "bytes:"."""
    if data is not None and not is_text(data):
        return f"bytes:{readable(data)}"
    return text if text is not None else readable(data or b"")


def chat_logprobs(token_ids: Sequence[int], places: Places, *, num_top: int, as_ids: bool) -> dict[str, Any]:
    """OpenAI's list of tokens, each with the most likely tokens and those requested by id."""
    content = []
    for token_id, place in zip(token_ids, places, strict=True):
        assert place is not None, "an output token has no log-probabilities"
        others = sorted(place.items(), key=lambda item: item[1].rank)
        shown = [item for item in others if item[1].rank <= num_top or item[0] != token_id]
        content.append(
            _chat_entry(token_id, place[token_id], as_ids=as_ids)
            | {"top_logprobs": [_chat_entry(key, entry, as_ids=as_ids) for key, entry in shown]}
        )
    return {"content": content, "refusal": None}


def _chat_entry(token_id: int, entry: Logprob, *, as_ids: bool) -> dict[str, Any]:
    text = f"token_id:{token_id}" if as_ids or entry.decoded_token is None else entry.decoded_token
    return {"token": text, "logprob": _value(entry), "bytes": list(_bytes(entry))}


def prompt_logprobs(places: Iterable[Mapping[int, Logprob] | None] | None) -> list[dict[str, Any] | None] | None:
    """Prompt log-probabilities in vLLM's form, with the tokens' bytes: for each token a mapping by id; None for the
    first."""
    if places is None:
        return None
    return [
        None if place is None else {str(key): _prompt_entry(entry) for key, entry in place.items()} for place in places
    ]


def _prompt_entry(entry: Logprob) -> dict[str, Any]:
    return {
        "logprob": _value(entry),
        "rank": entry.rank,
        "decoded_token": entry.decoded_token,
        "bytes": list(_bytes(entry)),
    }
