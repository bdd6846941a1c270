"""What is run: prompts, and how many requests at once. Prompts are random token ids, or questions from a file."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from outrider.core.errors import ConfigError
from outrider.core.sampling_params import SamplingParams
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests in the order in which they are submitted; `params[i]` belongs to `prompts[i]`."""

    prompts: list[list[int]]
    params: list[SamplingParams]
    max_concurrency: int
    """Most requests that are submitted and not finished."""


def random_prompts(count: int, *, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """`count` prompts of `length` token ids, the same for the same seed."""
    rng = random.Random(seed)
    return [[rng.randrange(vocab_size) for _ in range(length)] for _ in range(count)]


def dataset_prompts(path: Path, *, count: int, tokenizer: Tokenizer) -> list[list[int]]:
    """First turns of a JSONL file in Spec-Bench's form ({"turns": [text, …]} a line), under the chat template if the
    model has one; at most `count`."""
    prompts: list[list[int]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if len(prompts) == count:
            break
        try:
            turn = json.loads(line)["turns"][0]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{path}, line {number}: {error!r}. Each line is a JSON object with 'turns', a list of texts."
            ) from error
        if tokenizer.chat_template:
            prompts.append(encode_chat(tokenizer, [{"role": "user", "content": turn}], ChatOptions()))
        else:
            prompts.append(tokenizer.encode(turn))
    return prompts
