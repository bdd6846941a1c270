"""Requests alone and in crowds, with speculation and without: each must give the same tokens, from the same logits."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from outrider.core.outputs import RequestOutput
from outrider.core.sampling_params import SamplingParams
from outrider.llm import LLM

NUM_REQUESTS = 64
MAX_TOKENS = 8
MOST_PROMPT = 160
_LEAST_ALONE = 4
"""Requests that run alone even where no time is left."""


@dataclass(slots=True)
class EngineFinding:
    """Result of one way to run the requests."""

    name: str
    num_requests: int = 0
    num_left_out: int = 0
    """Requests for which no time was left."""
    differences: list[str] = field(default_factory=list)


def check_engine(llm: LLM, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> list[EngineFinding]:
    """Run requests alone until `seconds` have passed, then the same ones in crowds. The engine has digests on."""
    end = clock() + seconds
    worker = llm.engine.worker
    if worker.model_config.pooler is not None:
        return _check_pooling(llm, end, clock)
    cases = _cases(llm)
    alone = EngineFinding("alone, without drafts")
    truth: list[Any] = []
    for case in cases:
        if len(truth) >= _LEAST_ALONE and clock() >= end:
            break
        truth += _run(llm, [case], drafts=False)
    alone.num_requests, alone.num_left_out = len(truth), len(cases) - len(truth)
    cases = cases[: len(truth)]
    ways: list[tuple[str, Sequence[int], bool]] = [
        ("in a crowd, without drafts", range(len(cases)), False),
        ("in another order, without drafts", range(len(cases) - 1, -1, -1), False),
    ]
    if worker.drafter is not None:
        ways += [
            ("in a crowd, with drafts", range(len(cases)), True),
            ("alone, with drafts", range(0, len(cases), max(1, len(cases) // 8)), True),
        ]
    return [alone, *(_compare(llm, cases, truth, *way) for way in ways)]


def _compare(
    llm: LLM, cases: Sequence["_Case"], truth: Sequence[Any], name: str, order: Sequence[int], drafts: bool
) -> EngineFinding:
    found = EngineFinding(name, len(order))
    if name.startswith("alone"):
        outcomes = [outcome for index in order for outcome in _run(llm, [cases[index]], drafts=drafts)]
    else:
        outcomes = _run(llm, [cases[index] for index in order], drafts=drafts)
    for index, outcome in zip(order, outcomes, strict=True):
        if outcome != truth[index]:
            tokens = sum(a == b for a, b in zip(outcome[0], truth[index][0], strict=False))
            what = "other tokens" if outcome[0] != truth[index][0] else "the same tokens from other logits"
            found.differences.append(f"request {index}: {what} than alone ({tokens} of {MAX_TOKENS} tokens are equal)")
    return found


@dataclass(frozen=True, slots=True)
class _Case:
    prompt: list[int]
    params: dict[str, Any]


def _cases(llm: LLM) -> list[_Case]:
    """Prompts of many lengths, some with a common beginning; greedy and random, some with penalties."""
    worker, rng = llm.engine.worker, random.Random(1)
    vocab_size = worker.model_config.vocab_size
    longest = max(1, min(MOST_PROMPT, worker.max_model_len - MAX_TOKENS - worker.config.num_speculative_tokens - 1))
    shared = [rng.randrange(vocab_size) for _ in range(40)]
    cases = []
    for index in range(NUM_REQUESTS):
        own = [rng.randrange(vocab_size) for _ in range(1 + rng.randrange(longest))]
        prompt = (shared + own if index % 4 == 0 else own)[:longest]
        params: dict[str, Any] = {"temperature": (0.0, 0.8, 1.0)[index % 3], "seed": index}
        if index % 5 == 1:
            params |= {"top_p": 0.9, "top_k": 50}
        if index % 7 == 3:
            params |= {"repetition_penalty": 1.2, "frequency_penalty": 0.3}
        cases.append(_Case(prompt, params))
    return cases


def _run(llm: LLM, cases: Sequence[_Case], *, drafts: bool) -> list[Any]:
    """For each case its tokens and the digest of the logits that they were chosen from."""
    off: dict[str, Any] = {} if drafts else {"num_speculative_tokens": 0}
    params = [
        SamplingParams(max_tokens=MAX_TOKENS, ignore_eos=True, detokenize=False, **case.params, **off)
        for case in cases
    ]  # fmt: skip
    outputs: list[RequestOutput] = llm.generate([{"prompt_token_ids": case.prompt} for case in cases], params)
    return [(output.outputs[0].token_ids, output.outputs[0].logits_digest) for output in outputs]


def _check_pooling(llm: LLM, end: float, clock: Callable[[], float]) -> list[EngineFinding]:
    texts = [{"prompt_token_ids": case.prompt} for case in _cases(llm)]
    truth: list[str] = []
    for text in texts:
        if len(truth) >= _LEAST_ALONE and clock() >= end:
            break
        truth += _vectors(llm, [text])
    alone = EngineFinding("alone", len(truth), len(texts) - len(truth))
    crowd, reverse = (EngineFinding(name, len(truth)) for name in ("in a crowd", "in another order"))
    texts = texts[: len(truth)]
    found = [(crowd, _vectors(llm, texts)), (reverse, _vectors(llm, texts[::-1])[::-1])]
    for finding, vectors in found:
        finding.differences += [
            f"text {i}: other numbers than alone" for i, vector in enumerate(vectors) if vector != truth[i]
        ]
    return [alone, crowd, reverse]


def _vectors(llm: LLM, texts: Sequence[Any]) -> list[str]:
    return [repr(output.outputs.data) for output in llm.encode(list(texts))]
