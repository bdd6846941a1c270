"""The requests of a run: prompts from a file or random ones, maximum answer lengths, and times of sending.

Knows no HTTP. The same seed gives the same requests at the same times.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outrider.core.errors import ConfigError
from outrider.engine.tokenizer import Tokenizer
from outrider.gate.prompts import Prompt, read_prompts
from outrider.loading.hub_model import HubModel
from outrider.loading.model_source import local_path

DATASETS = ("random", "sharegpt", "spec_bench")
RANDOM_INPUT_LEN, RANDOM_OUTPUT_LEN, FILE_OUTPUT_LEN = 1024, 128, 256
"""Default lengths in tokens; the first two are vLLM's."""
_PLAIN_IDS = range(256, 1000)
"""Token ids of random prompts without a tokenizer: ordinary tokens in every vocabulary of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request to the server."""

    prompt: str | list[int]
    """Text, or token ids."""
    max_tokens: int

    def body(self, *, is_chat: bool) -> dict[str, Any]:
        """The fields of a completion request, or of a chat request with one message."""
        asked = {"messages": [{"role": "user", "content": self.prompt}]} if is_chat else {"prompt": self.prompt}
        return {**asked, "max_tokens": self.max_tokens}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The source of prompts; lengths are in tokens."""

    name: str
    path: Path | None
    tokenizer: Path | None
    input_len: int | None
    """Length of random prompts; None uses the default."""
    output_len: int | None
    range_ratio: float
    """Random lengths are uniform within this fraction around the requested length."""
    disable_shuffle: bool

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise ConfigError(f"--dataset-name={self.name!r} is unknown. Use {', '.join(DATASETS)}.")
        if (self.name == "random") != (self.path is None):
            remedy = "needs --dataset-path. Add it" if self.path is None else "has no --dataset-path. Remove it"
            raise ConfigError(f"--dataset-name {self.name} {remedy}.")
        if self.name != "random" and self.input_len is not None:
            raise ConfigError(f"--input-len={self.input_len} applies to random prompts only. Leave it out for a file.")
        if not 0.0 <= self.range_ratio < 1.0:
            raise ConfigError(
                f"--random-range-ratio={self.range_ratio} is out of range. Use 0 up to but not including 1."
            )

    def asks(self, count: int, *, seed: int, is_chat: bool) -> list[Ask]:
        """Makes `count` requests; a file with fewer prompts is repeated. Raises ConfigError or GateError."""
        rng = random.Random(seed)
        tokenizer = _tokenizer(self.tokenizer) if self.tokenizer is not None else None
        if self.path is None:
            if is_chat and tokenizer is None:
                raise ConfigError(
                    "random chat messages need --tokenizer, because a chat takes text, not token ids. Add it."
                )
            return [self._random(rng, tokenizer, is_chat=is_chat) for _ in range(count)]
        prompts = read_prompts(self.path)
        if not self.disable_shuffle:
            rng.shuffle(prompts)
        asks = [Ask(prompt=prompt.turns[0], max_tokens=self._answer_len(prompt, tokenizer)) for prompt in prompts]
        return [asks[index % len(asks)] for index in range(count)]

    def _answer_len(self, prompt: Prompt, tokenizer: Tokenizer | None) -> int:
        """The requested length, else that of the recorded answer, else the default."""
        if self.output_len is not None:
            return self.output_len
        if self.name == "sharegpt" and prompt.answer and tokenizer is not None:
            return max(len(tokenizer.encode(prompt.answer, add_special_tokens=False)), 1)
        return FILE_OUTPUT_LEN

    def _random(self, rng: random.Random, tokenizer: Tokenizer | None, *, is_chat: bool) -> Ask:
        length = self._random_len(rng, self.input_len or RANDOM_INPUT_LEN)
        choices = _PLAIN_IDS if tokenizer is None else tokenizer.plain_ids
        token_ids = [choices[rng.randrange(len(choices))] for _ in range(length)]
        prompt = tokenizer.decode(token_ids) if tokenizer is not None and is_chat else token_ids
        return Ask(prompt=prompt, max_tokens=self._random_len(rng, self.output_len or RANDOM_OUTPUT_LEN))

    def _random_len(self, rng: random.Random, length: int) -> int:
        spread = int(length * self.range_ratio)
        return max(rng.randint(length - spread, length + spread), 1)


def arrivals(count: int, *, rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds from the start at which each request is sent; all at once if `rate` (per second) is infinite.

    Gaps are gamma distributed with shape `burstiness` and mean 1 / rate: 1 is a Poisson process, less is burstier.
    """
    if rate == float("inf"):
        return [0.0] * count
    if rate <= 0 or burstiness <= 0:
        raise ConfigError(f"--request-rate={rate} and --burstiness={burstiness} must be above 0.")
    gaps = np.random.default_rng(seed).gamma(burstiness, 1.0 / (rate * burstiness), size=count)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def _tokenizer(model: Path) -> Tokenizer:
    """The tokenizer of a directory, or of a model on a hub."""
    return Tokenizer(Path(local_path(HubModel(name=str(model)), has_weights=False)))
