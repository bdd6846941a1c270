"""Adds to log-probabilities what each token is: its text and its bytes."""

from collections.abc import Mapping

from outrider.core.outputs import Logprob
from outrider.core.prompt_logprobs import PromptLogprobs
from outrider.engine.token_bytes import readable
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

Place = dict[int, Logprob]
"""Log-probabilities at one place of a text, by token id."""


class TokenNames:
    """Names the tokens of outputs and prompts; without a tokenizer they stay as they are."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._names: dict[tuple[int, bool], tuple[str, bytes]] = {}  # by id, and whether it begins a text

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

    def prompt(self, state: RequestState) -> PromptLogprobs:
        """Log-probabilities of a request's prompt. Special tokens are a part of a prompt."""
        tokenizer, token_ids = self._tokenizer, state.request.prompt_token_ids
        if tokenizer is None:
            return PromptLogprobs(token_ids, state.prompt_logprobs, name=None)
        texts = (place for place, token_id in enumerate(token_ids) if tokenizer.has_text(token_id))
        num_first = min(next(texts, len(token_ids)), len(state.prompt_logprobs))
        return PromptLogprobs(token_ids, state.prompt_logprobs, name=self._name, num_first=num_first)

    def _name(self, token_id: int, is_first: bool) -> tuple[str, bytes]:
        """Text and bytes of a token, made once."""
        name = self._names.get((token_id, is_first))
        if name is None:
            assert self._tokenizer is not None, "there is no tokenizer"
            data = self._tokenizer.token_bytes.of(token_id, is_first=is_first)
            name = self._names[token_id, is_first] = readable(data), data
        return name

    def _named(
        self, tokenizer: Tokenizer, place: Mapping[int, Logprob], *, is_first: bool, shows_special: bool
    ) -> Place:
        named = {}
        for token_id, entry in place.items():
            text, data = self._name(token_id, is_first)
            shown = data if shows_special or not tokenizer.is_special(token_id) else b""
            named[token_id] = Logprob(logprob=entry.logprob, rank=entry.rank, decoded_token=text, token_bytes=shown)
        return named
