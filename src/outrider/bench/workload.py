"""Workloads: prompts, their parameters and the concurrency. Prompts are random token ids or come from a file."""

import random
from dataclasses import dataclass
from pathlib import Path

from outrider.core.sampling_params import SamplingParams
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer
from outrider.gate.prompts import read_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests in the order in which they are submitted; `params[i]` belongs to `prompts[i]`."""

    prompts: list[list[int]]
    params: list[SamplingParams]
    max_concurrency: int
    """Maximum number of unfinished requests."""


def random_prompts(count: int, *, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """`count` prompts of `length` token ids, the same for the same seed."""
    rng = random.Random(seed)
    return [[rng.randrange(vocab_size) for _ in range(length)] for _ in range(count)]


def dataset_prompts(path: Path, *, count: int, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of the first turns of a prompt file, in its order, at most `count`.

    A user message goes through the chat template if the model has one."""
    has_template = bool(tokenizer.chat_template)
    return [
        encode_chat(tokenizer, [{"role": "user", "content": prompt.turns[0]}], ChatOptions())
        if has_template and prompt.is_chat
        else tokenizer.encode(prompt.turns[0])
        for prompt in read_prompts(path)[:count]
    ]
