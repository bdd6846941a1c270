"""Log-probabilities in the three response formats: completions, chat completions, prompts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outrider.core.outputs import Logprob

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot express (vLLM's value)."""

Places = Sequence[Mapping[int, Logprob] | None]
"""One entry per token: log-probabilities by token id; None for the first token of a prompt."""


def _value(entry: Logprob) -> float:
    return max(entry.logprob, LOWEST)


def _text(token_id: int, entry: Logprob, *, as_ids: bool) -> str:
    return f"token_id:{token_id}" if as_ids or entry.decoded_token is None else entry.decoded_token


def completion_logprobs(
    token_ids: Sequence[int], places: Places, *, offset: int, as_ids: bool
) -> tuple[dict[str, Any], int]:
    """OpenAI's four lists for `token_ids`, and the text offset after the last token."""
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for token_id, place in zip(token_ids, places, strict=True):
        offsets.append(offset)
        if place is None:
            tokens.append(f"token_id:{token_id}" if as_ids else "")
            values.append(None)
            tops.append(None)
            continue
        entry = place[token_id]
        tokens.append(_text(token_id, entry, as_ids=as_ids))
        values.append(_value(entry))
        tops.append({_text(key, other, as_ids=as_ids): _value(other) for key, other in place.items()})
        offset += len(entry.decoded_token or "")
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}, offset


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
    text = _text(token_id, entry, as_ids=as_ids)
    return {"token": text, "logprob": _value(entry), "bytes": list(text.encode())}


def prompt_logprobs(places: Iterable[Mapping[int, Logprob] | None] | None) -> list[dict[str, Any] | None] | None:
    """Prompt log-probabilities in vLLM's form: for each token a mapping by id; None for the first."""
    if places is None:
        return None
    return [
        None
        if place is None
        else {
            str(token_id): {"logprob": _value(entry), "rank": entry.rank, "decoded_token": entry.decoded_token}
            for token_id, entry in place.items()
        }
        for place in places
    ]
