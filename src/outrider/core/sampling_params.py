"""`SamplingParams`: the sampling parameters of a request, checked when the object is created.

Independent of the model: admission checks ids against the vocabulary (`engine/admission.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from typing import Any

from outrider.core.errors import RequestError

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy (vLLM's threshold)."""

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 300
"""OpenAI's limit; also the width of the table that holds them on the device."""

MAX_STOP_TOKEN_IDS = 32
"""Largest number of stop ids (eos included) per request."""

MAX_CHOICES = 128
MAX_BAD_WORDS = 64
"""Largest number of forbidden token sequences per request; a word given as text can take two of them."""
MAX_BAD_WORD_TOKENS = 16
MAX_LOGPROB_TOKEN_IDS = 32
MAX_GRAMMAR_CHARACTERS = 1 << 16
"""Maximum length of a schema, expression or grammar; one of this length compiles in a second."""

_CONTAINERS = {
    "stop": "one text or a list of texts",
    "stop_token_ids": "a list of token ids",
    "logit_bias": "a dict of token id to number",
    "bad_words": "a list of texts or of lists of token ids",
    "allowed_token_ids": "a list of token ids",
    "logprob_token_ids": "a list of token ids",
}

_REFUSED = {
    "best_of": "Ask for n and choose among the outputs yourself.",
    "logits_processors": "A function cannot run on the device. Use logit_bias, bad_words or allowed_token_ids.",
}
"""Fields of other engines that are not offered, and what to do instead."""


def _check_number(name: str, value: Any, low: float, high: float, *, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is out of range: it takes a number from {low} to {high}. {remedy}")


def _check_int(name: str, value: Any, low: int, high: int, *, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """Constraint on an output: exactly one of these fields. Names and meanings are vLLM's."""

    json: str | dict[str, Any] | None = None
    """A JSON schema, stored as text; the output is JSON that conforms to it."""
    regex: str | None = None
    """A regular expression that the whole output matches."""
    choice: Sequence[str] | None = None
    """The output is one of these texts."""
    grammar: str | None = None
    """A grammar in EBNF (the form of llama.cpp) or in Lark's form."""
    json_object: bool = False
    """Any JSON object."""

    def __post_init__(self) -> None:
        given = [name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None]
        given += ["json_object"] if self.json_object else []
        if len(given) != 1:
            raise RequestError(
                f"structured_outputs has {given or 'nothing'}. Give one of json, regex, choice, grammar."
            )
        if isinstance(self.json, dict):
            try:
                object.__setattr__(self, "json", dumps(self.json))
            except (RecursionError, TypeError, ValueError) as error:
                raise RequestError(f"structured_outputs: json is not JSON: {error}. Give a flatter schema.") from None
        for name in ("json", "regex", "grammar"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise RequestError(f"structured_outputs: {name}={value!r} is a {type(value).__name__}. Use text.")
            if value is not None and len(value) > MAX_GRAMMAR_CHARACTERS:
                raise RequestError(
                    f"structured_outputs: {name} has {len(value)} characters; at most {MAX_GRAMMAR_CHARACTERS} fit. "
                    "Shorten it."
                )
        if self.choice is not None:
            is_list = isinstance(self.choice, (list, tuple))
            if not is_list or not self.choice or not all(isinstance(text, str) and text for text in self.choice):
                raise RequestError(f"structured_outputs: choice={self.choice!r} is not a list of texts.")
            if sum(map(len, self.choice)) > MAX_GRAMMAR_CHARACTERS:
                raise RequestError(
                    f"structured_outputs: choice has {sum(map(len, self.choice))} characters; at most "
                    f"{MAX_GRAMMAR_CHARACTERS} are taken. Shorten it."
                )
            object.__setattr__(self, "choice", tuple(self.choice))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters of one request; names and meanings are vLLM's."""

    n: int = 1
    """Completions per prompt; each draws its own noise. The first equals that of n=1."""
    best_of: None = None
    """Not offered."""
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
    """Maximum number of output tokens; None: up to max_model_len."""
    stop: str | list[str] | None = None
    """Text that ends the output; it is not part of the returned text."""
    stop_token_ids: list[int] | None = None
    """Token ids that end the output; the id is the last of token_ids, its text is not returned."""
    ignore_eos: bool = False
    """Continue after eos."""
    seed: int | None = None
    """64-bit seed of the noise; without one the engine draws one and reports it."""
    logprobs: int | None = None
    """Return the log-probability of each token and of this many most likely ones (0: the chosen only)."""
    logprob_token_ids: list[int] | None = None
    """Return the log-probabilities of these token ids at each output token, too."""
    prompt_logprobs: int | None = None
    """Like `logprobs`, for the tokens of the prompt; such a request does not read the prefix cache."""
    bad_words: list[str | list[int]] | None = None
    """Words, or sequences of token ids, that the output may not contain: their last token is forbidden where the
    others came just before it. A word of text is forbidden with and without a space in front."""
    allowed_token_ids: list[int] | None = None
    """Only these token ids may be produced."""
    include_stop_str_in_output: bool = False
    """Keep the stop string, or the text of the stop token, in the returned text."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the returned text."""
    detokenize: bool = True
    """Return text; without it only token ids come back, and stop strings are refused."""
    truncate_prompt_tokens: int | None = None
    """Keep only this many tokens of the prompt, the last ones; -1 as many as leave room for max_tokens."""
    echo: bool = False
    """The returned text begins with the prompt's."""
    num_speculative_tokens: int | None = None
    """Maximum number of drafts per step for this request, if below the engine's; 0 turns speculation off for it. The
    tokens do not change."""
    structured_outputs: StructuredOutputsParams | None = None
    """A schema, expression or grammar that the output conforms to."""
    priority: int = 0
    """Requests with a lower number are started first, and preempted last."""
    logits_processors: None = None
    """Not offered."""

    def __post_init__(self) -> None:
        for name, remedy in _REFUSED.items():
            if getattr(self, name) is not None:
                raise RequestError(f"{name}={getattr(self, name)!r} is not offered. {remedy}")
        _check_int("n", self.n, 1, MAX_CHOICES, remedy="1 is the default.")
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
        if self.prompt_logprobs is not None:
            _check_int("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS, remedy="None returns none.")
        if self.truncate_prompt_tokens is not None:
            _check_int(
                "truncate_prompt_tokens", self.truncate_prompt_tokens, -1, 2**31 - 1, remedy="None cuts nothing."
            )
            if self.truncate_prompt_tokens == 0:
                raise RequestError("truncate_prompt_tokens=0 leaves no prompt. Give 1 or more, or -1.")
        if self.num_speculative_tokens is not None:
            _check_int("num_speculative_tokens", self.num_speculative_tokens, 0, 2**31 - 1, remedy="0 is off.")
        asked = self.structured_outputs
        if asked is not None and not isinstance(asked, StructuredOutputsParams):
            raise RequestError(
                f"structured_outputs={asked!r} must be a StructuredOutputsParams. Use StructuredOutputsParams(json=…)."
            )
        _check_int("priority", self.priority, -(2**31), 2**31 - 1, remedy="0 is the default.")
        for name, kinds in (
            ("stop", (str, list, tuple)),
            ("stop_token_ids", (list, tuple)),
            ("logit_bias", dict),
            ("bad_words", (list, tuple)),
            ("allowed_token_ids", (list, tuple)),
            ("logprob_token_ids", (list, tuple)),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                raise RequestError(f"{name}={value!r} is a {type(value).__name__}. Use {_CONTAINERS[name]}.")
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "detokenize", "echo"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name}={getattr(self, name)!r} must be True or False.")
        for text in self.stop_strings:
            if not isinstance(text, str) or not text:
                raise RequestError(f"stop={self.stop!r} holds {text!r}: stop strings are non-empty text.")
        for token_id in self.stop_token_ids or []:
            _check_int("stop_token_ids", token_id, 0, 2**31 - 1, remedy="Each is a token id.")
        if len(self.stop_token_ids or []) > MAX_STOP_TOKEN_IDS - 8:
            raise RequestError(
                f"stop_token_ids has {len(self.stop_token_ids or [])} ids; at most {MAX_STOP_TOKEN_IDS - 8} fit."
            )
        if self.stop_strings and not self.detokenize:
            raise RequestError(f"stop={self.stop!r} needs text, and detokenize=False makes none. Use stop_token_ids.")
        if self.echo and not self.detokenize:
            raise RequestError("echo=True needs text, and detokenize=False makes none. Leave echo unset.")
        self._check_id_lists()
        bias = self.logit_bias or {}
        if len(bias) > MAX_LOGIT_BIAS:
            raise RequestError(f"logit_bias has {len(bias)} entries; at most {MAX_LOGIT_BIAS} fit.")
        for token_id, value in bias.items():
            _check_int("logit_bias", token_id, 0, 2**31 - 1, remedy="Each key is a token id.")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -infinity < value < infinity:
                raise RequestError(f"logit_bias[{token_id}]={value!r} is not a finite number.")

    def _check_id_lists(self) -> None:
        for token_id in self.allowed_token_ids or []:
            _check_int("allowed_token_ids", token_id, 0, 2**31 - 1, remedy="Each is a token id.")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise RequestError("allowed_token_ids=[] allows nothing. Leave it unset to allow every token.")
        for token_id in self.logprob_token_ids or []:
            _check_int("logprob_token_ids", token_id, 0, 2**31 - 1, remedy="Each is a token id.")
        if len(self.logprob_token_ids or []) > MAX_LOGPROB_TOKEN_IDS:
            raise RequestError(
                f"logprob_token_ids has {len(self.logprob_token_ids or [])} ids; at most {MAX_LOGPROB_TOKEN_IDS} fit."
            )
        for word in self.bad_words or []:
            if isinstance(word, str) and word.strip():
                continue
            if not isinstance(word, (list, tuple)) or not word:
                raise RequestError(
                    f"bad_words holds {word!r}. Each is a text that is not blank, or a list of token ids."
                )
            for token_id in word:
                _check_int("bad_words", token_id, 0, 2**31 - 1, remedy="A list holds token ids.")

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def is_greedy(self) -> bool:
        """True if the request samples without noise."""
        return self.temperature < GREEDY_BELOW

    @property
    def num_logprobs(self) -> int | None:
        """Number of top tokens returned with each token; None: no log-probabilities at all."""
        return self.logprobs if self.logprobs is not None or not self.logprob_token_ids else 0

    @property
    def has_penalties(self) -> bool:
        """True if the logits depend on tokens already seen."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def has_truncation(self) -> bool:
        """True if top_k, top_p or min_p can remove a token of a random row."""
        return not self.is_greedy and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)
