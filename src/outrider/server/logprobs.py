"""Log-probabilities as completions, chat completions and prompts show them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outrider.core.outputs import Logprob

LOWEST = -9999.0
"""In place of minus infinity, which JSON does not have (vLLM's value)."""

Places = Sequence[Mapping[int, Logprob] | None]
"""For each token what is known at its place; None at the first of a prompt."""


def _value(entry: Logprob) -> float:
    return max(entry.logprob, LOWEST)


def _text(token_id: int, entry: Logprob, *, as_ids: bool) -> str:
    return f"token_id:{token_id}" if as_ids or entry.decoded_token is None else entry.decoded_token


def completion_logprobs(
    token_ids: Sequence[int], places: Places, *, offset: int, as_ids: bool
) -> tuple[dict[str, Any], int]:
    """OpenAI's four lists for some tokens, and the text offset behind them."""
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
    """OpenAI's list of tokens, each with the most likely ones, and those asked for by id."""
    content = []
    for token_id, place in zip(token_ids, places, strict=True):
        assert place is not None, "an output token has log-probabilities"
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
    """vLLM's form: for each token of the prompt a mapping of ids; None for the first."""
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
