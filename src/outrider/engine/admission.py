"""Turns prompts and parameters into a checked `Request`; requests are refused here, before anything else changes."""

import random
from collections.abc import Sequence
from typing import Any

from outrider.core.content import ContentKey
from outrider.core.errors import RequestError
from outrider.core.request import Request
from outrider.core.sampling_params import (
    MAX_BAD_WORD_TOKENS,
    MAX_BAD_WORDS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)
from outrider.engine.grammar import Grammars
from outrider.engine.tokenizer import Tokenizer

Prompt = str | dict[str, Any]
"""Text, or {"prompt_token_ids": [...]}."""

_MAX_CUT_CHARACTERS = 1 << 18
"""Characters that a text may have with truncate_prompt_tokens, even if the context is smaller."""
_PROMPT_KEYS = {"prompt_token_ids", "prompt"}


class Admission:
    """Checks prompts and parameters against one model, and draws seeds for requests that have none."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        max_model_len: int,
        eos_token_ids: tuple[int, ...],
        seed: int,
        grammars: Grammars | None = None,
        compiles_grammars: bool = True,
    ) -> None:
        """compiles_grammars: False if the engine is another process, which compiles each grammar and may refuse it;
        here it is read, and checked as far as that goes."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._eos_token_ids = eos_token_ids
        self._seeds = random.Random(seed)
        self._compiles_grammars = compiles_grammars
        self._grammars = grammars or Grammars(tokenizer, vocab_size=vocab_size, eos_token_ids=eos_token_ids)

    def request(
        self, prompt: Prompt, params: SamplingParams, *, request_id: str, content_keys: Sequence[ContentKey] = ()
    ) -> Request:
        """Return a checked request. `content_keys`: what its KV depends on beside the tokens. Raises RequestError with
        the value, the reason and the remedy."""
        text, token_ids = self._truncate(*self._prompt(prompt, params), params)
        num_tokens = len(token_ids)
        if num_tokens >= self._max_model_len:
            raise RequestError(
                f"the prompt has {num_tokens} tokens and max_model_len={self._max_model_len} leaves no room for "
                "an output. Shorten the prompt or raise max_model_len."
            )
        self._check_ids("prompt_token_ids", token_ids)
        self._check_ids("stop_token_ids", params.stop_token_ids or ())
        self._check_ids("logit_bias", list(params.logit_bias or {}))
        self._check_ids("allowed_token_ids", params.allowed_token_ids or ())
        self._check_ids("logprob_token_ids", params.logprob_token_ids or ())
        if params.echo and self._tokenizer is None:
            raise RequestError("echo=True needs text, and there is no tokenizer. Leave echo unset.")
        if params.stop_strings and self._tokenizer is None:
            raise RequestError(f"stop={params.stop!r} needs text, and there is no tokenizer. Use stop_token_ids.")
        grammar = self._grammars.check(params, compiles=self._compiles_grammars)
        eos_token_ids = () if params.ignore_eos else self._eos_token_ids
        num_stops = len(eos_token_ids) + len(params.stop_token_ids or ())
        if num_stops > MAX_STOP_TOKEN_IDS:
            raise RequestError(
                f"{num_stops} stop ids (eos included) are too many: at most {MAX_STOP_TOKEN_IDS} fit. "
                "Shorten stop_token_ids."
            )
        bad_words = self._bad_words(params)
        stop_token_ids = (*eos_token_ids, *(params.stop_token_ids or ()))
        self._check_some_token_is_left(params, bad_words, stop_token_ids if params.min_tokens else ())
        num_tokens_left = self._max_model_len - num_tokens
        if params.max_tokens is not None:
            num_tokens_left = min(num_tokens_left, params.max_tokens)
        seed = params.seed if params.seed is not None else self._seeds.getrandbits(63)
        return Request(
            request_id=request_id,
            prompt=text,
            prompt_token_ids=tuple(token_ids),
            params=params,
            seed=seed,
            eos_token_ids=eos_token_ids,
            max_total_tokens=num_tokens + num_tokens_left,
            bad_words=bad_words,
            grammar=grammar,
            content_keys=tuple(content_keys),
        )

    def encode(self, text: str, params: SamplingParams, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt of text; there is a tokenizer. A text that is certainly too long is refused first."""
        assert self._tokenizer is not None, "there is no tokenizer"
        characters = _MAX_CUT_CHARACTERS if params.truncate_prompt_tokens is not None else 0
        if len(text) > characters:
            self._tokenizer.check_length(text, max_tokens=self._max_model_len)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _truncate(self, text: str | None, token_ids: list[int], params: SamplingParams) -> tuple[str | None, list[int]]:
        """Keep the last tokens of the prompt, as many as `params` asks for, and their text."""
        most = params.truncate_prompt_tokens
        if most == -1:
            most = max(1, self._max_model_len - (params.max_tokens or 1))
        if most is None or len(token_ids) <= most:
            return text, token_ids
        token_ids = token_ids[-most:]
        if text is not None:
            text = self._tokenizer.decode(token_ids, skip_special_tokens=False) if self._tokenizer else None
        return text, token_ids

    def _bad_words(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """Token ids of the bad words; for a text, with and without a space in front, if the space changes its token."""
        found: dict[tuple[int, ...], None] = {}
        for word in params.bad_words or ():
            if not isinstance(word, str):
                self._check_ids("bad_words", word)
                found[tuple(word)] = None
                continue
            if self._tokenizer is None:
                raise RequestError(f"bad_words holds the text {word!r}, and there is no tokenizer. Give token ids.")
            bare = tuple(self._tokenizer.encode(word.lstrip(), add_special_tokens=False))
            spaced = tuple(self._tokenizer.encode(" " + word.lstrip(), add_special_tokens=False))
            found[bare] = None
            if spaced[0] != bare[0] and len(spaced) == len(bare):  # vLLM's rule
                found[spaced] = None
        if len(found) > MAX_BAD_WORDS:
            raise RequestError(f"bad_words are {len(found)} token sequences; at most {MAX_BAD_WORDS} fit. Give fewer.")
        for ids in found:
            if len(ids) > MAX_BAD_WORD_TOKENS:
                raise RequestError(
                    f"bad_words holds a word of {len(ids)} tokens; at most {MAX_BAD_WORD_TOKENS} fit. Shorten it."
                )
        return tuple(found)

    def _check_some_token_is_left(
        self, params: SamplingParams, bad_words: tuple[tuple[int, ...], ...], stop_token_ids: tuple[int, ...]
    ) -> None:
        """Raise RequestError unless some token is always allowed, so that there is always one to choose."""
        if params.allowed_token_ids is None and not bad_words:
            return
        forbidden = {ids[-1] for ids in bad_words}.union(stop_token_ids)
        if params.allowed_token_ids is None:
            is_left = len(forbidden) < self._vocab_size
        else:
            is_left = not forbidden.issuperset(params.allowed_token_ids)
        if not is_left:
            raise RequestError(
                "allowed_token_ids, bad_words and min_tokens together can leave no token to choose. "
                "Allow a token that is not a stop id and does not end a bad word."
            )

    def _prompt(self, prompt: Prompt, params: SamplingParams) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise RequestError(
                    f"prompt={prompt!r} is text, and there is no tokenizer. Pass {{'prompt_token_ids': [...]}}."
                )
            token_ids = self.encode(prompt, params)
            if not token_ids:
                raise RequestError(f"prompt={prompt!r} is empty. Give at least one token.")
            return prompt, token_ids
        if isinstance(prompt, dict) and "prompt_token_ids" in prompt and not set(prompt) - _PROMPT_KEYS:
            given = prompt["prompt_token_ids"]
            if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
                raise RequestError(f"prompt_token_ids={given!r} is a {type(given).__name__}. Give a list of ids.")
            if not given:
                raise RequestError("prompt_token_ids=[] is empty. Give at least one token.")
            return prompt.get("prompt"), list(given)
        if isinstance(prompt, dict) and (unknown := sorted(map(str, set(prompt) - _PROMPT_KEYS))):
            raise RequestError(
                f"prompt key {unknown[0]!r} is not supported: a prompt is text or token ids. "
                "Give {'prompt_token_ids': [...]} or text."
            )
        raise RequestError(
            f"prompt={prompt!r} is not a prompt. Give text or {{'prompt_token_ids': [...]}}; use chat() for messages."
        )

    def _check_ids(self, name: str, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < self._vocab_size:
                raise RequestError(
                    f"{name} holds {token_id!r}, which is not a token id. Use 0 to {self._vocab_size - 1}."
                )
