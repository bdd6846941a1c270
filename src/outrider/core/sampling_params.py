"""What a request asks of the sampler: `SamplingParams`, checked when it is made.

Knows nothing of the model: ids are checked against the vocabulary at admission (`engine/admission.py`).
"""

from dataclasses import dataclass
from typing import Any

from outrider.core.errors import RequestError

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy (vLLM's threshold)."""

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 300
"""OpenAI's limit; also the width of the table that holds them on the device."""

MAX_STOP_TOKEN_IDS = 32
"""Most stop ids (eos included) that one request may carry."""


_CONTAINERS = {
    "stop": "one text or a list of texts",
    "stop_token_ids": "a list of token ids",
    "logit_bias": "a dict of token id to number",
}


def _check_number(name: str, value: Any, low: float, high: float, *, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is out of range: it takes a number from {low} to {high}. {remedy}")


def _check_int(name: str, value: Any, low: int, high: int, *, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters of one request; names and meanings are vLLM's."""

    n: int = 1
    """Completions per prompt. Only 1 is built."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 or -1 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose mass reaches top_p."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen in prompt or output."""
    presence_penalty: float = 0.0
    """Subtracted once from the logits of tokens seen in the output."""
    frequency_penalty: float = 0.0
    """Subtracted once per occurrence in the output."""
    logit_bias: dict[int, float] | None = None
    """Added to the logits of the given token ids."""
    min_tokens: int = 0
    """No stop token (eos included) may be produced before this many output tokens."""
    max_tokens: int | None = 16
    """Most output tokens; None runs to max_model_len."""
    stop: str | list[str] | None = None
    """Text that ends the output; it is not part of the returned text."""
    stop_token_ids: list[int] | None = None
    """Token ids that end the output; the id is the last of token_ids, its text is not returned."""
    ignore_eos: bool = False
    """Go on after eos."""
    seed: int | None = None
    """64-bit seed of the noise; without one the engine draws one and reports it."""
    logprobs: int | None = None
    """Return the log-probability of each token and of this many most likely ones (0: the chosen only)."""

    def __post_init__(self) -> None:
        if self.n != 1:
            raise RequestError(f"n={self.n!r} is not built yet: only n=1. Submit the prompt with other seeds.")
        infinity = float("inf")
        _check_number("temperature", self.temperature, 0.0, 1e4, remedy="0 is greedy.")
        _check_int("top_k", self.top_k, -1, 2**31 - 1, remedy="0 keeps all tokens.")
        _check_number("top_p", self.top_p, 0.0, 1.0, remedy="1 keeps all tokens.")
        if self.top_p == 0.0:
            raise RequestError("top_p=0 keeps no token. Use temperature=0 for the most likely token.")
        _check_number("min_p", self.min_p, 0.0, 1.0, remedy="0 keeps all tokens.")
        _check_number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3, remedy="1 changes nothing.")
        _check_number("presence_penalty", self.presence_penalty, -2.0, 2.0, remedy="0 changes nothing.")
        _check_number("frequency_penalty", self.frequency_penalty, -2.0, 2.0, remedy="0 changes nothing.")
        _check_int("min_tokens", self.min_tokens, 0, 2**31 - 1, remedy="0 asks for none.")
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1, 2**31 - 1, remedy="None runs to max_model_len.")
            if self.min_tokens > self.max_tokens:
                raise RequestError(
                    f"min_tokens={self.min_tokens} is above max_tokens={self.max_tokens}. Lower min_tokens."
                )
        if self.seed is not None:
            _check_int("seed", self.seed, -(2**63), 2**63 - 1, remedy="None draws one.")
        if self.logprobs is not None:
            _check_int("logprobs", self.logprobs, 0, MAX_LOGPROBS, remedy="None returns none.")
        for name, kinds in (("stop", (str, list, tuple)), ("stop_token_ids", (list, tuple)), ("logit_bias", dict)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                raise RequestError(f"{name}={value!r} is a {type(value).__name__}. Use {_CONTAINERS[name]}.")
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos={self.ignore_eos!r} is not a choice; it takes True or False.")
        for text in self.stop_strings:
            if not isinstance(text, str) or not text:
                raise RequestError(f"stop={self.stop!r} holds {text!r}: stop strings are non-empty text.")
        for token_id in self.stop_token_ids or []:
            _check_int("stop_token_ids", token_id, 0, 2**31 - 1, remedy="Each is a token id.")
        if len(self.stop_token_ids or []) > MAX_STOP_TOKEN_IDS - 8:
            raise RequestError(
                f"stop_token_ids has {len(self.stop_token_ids or [])} ids; at most {MAX_STOP_TOKEN_IDS - 8} fit."
            )
        bias = self.logit_bias or {}
        if len(bias) > MAX_LOGIT_BIAS:
            raise RequestError(f"logit_bias has {len(bias)} entries; at most {MAX_LOGIT_BIAS} fit.")
        for token_id, value in bias.items():
            _check_int("logit_bias", token_id, 0, 2**31 - 1, remedy="Each key is a token id.")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -infinity < value < infinity:
                raise RequestError(f"logit_bias[{token_id}]={value!r} is not a finite number.")

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def is_greedy(self) -> bool:
        """True where no noise is made."""
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        """True where the logits depend on tokens already seen."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def has_truncation(self) -> bool:
        """True where top_k, top_p or min_p can remove a token of a random row."""
        return not self.is_greedy and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)
