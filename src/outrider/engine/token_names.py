"""Adds to log-probabilities what each token is: its text and its bytes."""

from collections.abc import Mapping
from dataclasses import replace

from outrider.core.outputs import Logprob
from outrider.engine.token_bytes import readable
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

Place = dict[int, Logprob]
"""Log-probabilities at one place of a text, by token id."""


class TokenNames:
    """Names the tokens of outputs and prompts; without a tokenizer they stay as they are."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    def output(self, state: RequestState, begin: int = 0) -> list[Place]:
        """Log-probabilities of a request's output tokens from `begin` on.

        Joined bytes of the tokens are the text: a special token that the text leaves out has none.
        """
        token_ids, places = state.output_token_ids, state.logprobs[begin:]
        tokenizer, skips = self._tokenizer, state.params.skip_special_tokens
        if tokenizer is None:
            return places
        has_begun = any(tokenizer.has_text(token_id, skip_special_tokens=skips) for token_id in token_ids[:begin])
        named = []
        for token_id, place in zip(token_ids[begin:], places, strict=True):
            named.append(self._named(tokenizer, place, is_first=not has_begun, shows_special=not skips))
            has_begun = has_begun or tokenizer.has_text(token_id, skip_special_tokens=skips)
        return named

    def prompt(self, state: RequestState) -> list[Place]:
        """Log-probabilities of a request's prompt tokens, from the second on. Special tokens are a part of a prompt."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            return state.prompt_logprobs
        token_ids = state.request.prompt_token_ids
        named, has_begun = [], tokenizer.has_text(token_ids[0])
        for token_id, place in zip(token_ids[1:], state.prompt_logprobs, strict=False):
            named.append(self._named(tokenizer, place, is_first=not has_begun, shows_special=True))
            has_begun = has_begun or tokenizer.has_text(token_id)
        return named

    def _named(
        self, tokenizer: Tokenizer, place: Mapping[int, Logprob], *, is_first: bool, shows_special: bool
    ) -> Place:
        named = {}
        for token_id, entry in place.items():
            data = tokenizer.token_bytes.of(token_id, is_first=is_first)
            shown = data if shows_special or not tokenizer.is_special(token_id) else b""
            named[token_id] = replace(entry, decoded_token=readable(data), token_bytes=shown)
        return named
