"""A mix of requests that uses every sampling parameter, their outcomes, and the comparison of two outcomes.

The expected outcome ("truth") is that of each request alone: no speculation, depth 0, no prefix cache, the prompt in
one piece.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider import LLM, RequestOutput, SamplingParams

VOCAB = 61
EOS = 2
MAX_MODEL_LEN = 320


@dataclass(frozen=True)
class Case:
    """One request."""

    name: str
    prompt: tuple[int, ...]
    params: SamplingParams


def _tokens(count: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, VOCAB) for _ in range(count))


def make_cases(eos: int = EOS) -> list[Case]:
    """Prompts of mixed lengths, some with a shared beginning; parameters are combined. `eos`: the target's."""
    shared = _tokens(37, 1)
    few = (5, 9, 17, 21, 33, 40, 52, 58)

    def case(name: str, prompt: tuple[int, ...], **params: Any) -> Case:
        params = {"max_tokens": 40, "ignore_eos": True, "seed": 11} | params
        return Case(name, prompt, SamplingParams(**params))

    return [
        case("greedy, long", _tokens(5, 2), temperature=0.0, max_tokens=150),
        case("greedy, shared prefix", shared, temperature=0.0),
        case("temperature 1, shared prefix", shared + _tokens(9, 3), temperature=1.0),
        case("same prompt, other seed", shared + _tokens(9, 3), temperature=1.0, seed=-5),
        case("top-k and top-p", _tokens(20, 4), temperature=0.8, top_k=12, top_p=0.9),
        case("min-p", _tokens(16, 5), temperature=1.3, min_p=0.1),
        case(
            "penalties, greedy", _tokens(33, 6), temperature=0.0,
            repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4,
        ),
        case(
            "penalties, random", _tokens(12, 7), temperature=0.9,
            repetition_penalty=0.8, presence_penalty=-0.5, frequency_penalty=-0.3, logit_bias={7: 3.0, 9: -50.0},
        ),
        case("logprobs", shared[:18], temperature=0.7, logprobs=5),
        case("logprobs, greedy", _tokens(1, 8), temperature=0.0, logprobs=0, frequency_penalty=1.5),
        case("eos", _tokens(8, 9), temperature=1.0, ignore_eos=False, logit_bias={eos: 2.0}),
        case("min_tokens", _tokens(8, 10), temperature=1.0, ignore_eos=False, min_tokens=17, logit_bias={eos: 6.0}),
        case("stop ids", _tokens(48, 11), temperature=1.2, stop_token_ids=[5, 6], logit_bias={5: 1.0, 6: 1.0}),
        case("one token", _tokens(70, 12), temperature=0.0, max_tokens=1),
        case(
            "bad words", _tokens(14, 13), temperature=1.0, allowed_token_ids=list(few), logprob_token_ids=[few[3], 60],
            bad_words=[[a, b] for a in few for b in few[:2]]
            + [list(word) for word in itertools.permutations(few[2:7], 3)][:48],
        ),
        case(
            "bad words, greedy", shared[:25], temperature=0.0, num_speculative_tokens=1,
            bad_words=[[a, b] for a in range(3, 11) for b in range(5, 13)][:60],
        ),
        case("prompt logprobs", shared + _tokens(30, 14), temperature=1.0, prompt_logprobs=3, max_tokens=12),
        case("two of one prompt", _tokens(19, 15), temperature=1.0, n=2, priority=1, prompt_logprobs=0),
        case("without speculation", _tokens(23, 16), temperature=0.9, num_speculative_tokens=0, priority=-1),
    ]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Everything that must be equal; of several completions, one after the other."""

    token_ids: tuple[int, ...]
    logits_digest: str
    finish_reason: str
    stop_reason: str
    logprobs: str
    prompt_logprobs: str


def outcome(output: RequestOutput) -> Outcome:
    completions = output.outputs
    return Outcome(
        tuple(token_id for completion in completions for token_id in completion.token_ids),
        repr([completion.logits_digest for completion in completions]),
        repr([completion.finish_reason for completion in completions]),
        repr([completion.stop_reason for completion in completions]),
        repr([completion.logprobs for completion in completions]),
        repr(output.prompt_logprobs),
    )


def make(target: Path, **options: Any) -> LLM:
    """An engine on the tiny target, digests on."""
    options = {"max_model_len": MAX_MODEL_LEN, "skip_tokenizer_init": True, "logits_digest": True} | options
    return LLM(str(target), **options)


def run(llm: LLM, cases: Sequence[Case]) -> list[RequestOutput]:
    """All cases at once."""
    prompts = [{"prompt_token_ids": list(case.prompt)} for case in cases]
    return llm.generate(prompts, [case.params for case in cases])


def truth(target: Path, cases: Sequence[Case]) -> list[Outcome]:
    """Each case alone, in the plainest way there is."""
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, max_num_batched_tokens=512)
    outcomes = [outcome(run(llm, [case])[0]) for case in cases]
    assert all("None" not in found.logits_digest for found in outcomes)
    return outcomes


def replay(cases: Sequence[Case], expected: Sequence[Outcome]) -> dict[str, Any]:
    """A drafter that knows the answers, and is right with probability 0.7."""
    answers = [list(case.prompt) + list(want.token_ids) for case, want in zip(cases, expected, strict=True)]
    return {"method": "tests.support.drafters.replay", "answers": answers}


def second_turns(cases: Sequence[Case], expected: Sequence[Outcome], *, max_tokens: int = 20) -> list[Case]:
    """Conversations that go on: prompt and output of a case, and some more."""
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
    return [
        Case(f"{case.name}, second turn", case.prompt + want.token_ids + (9, 8, 7), params)
        for case, want in zip(cases, expected, strict=True)
    ]


def accepted_counts(llm: LLM) -> set[int]:
    """Watches an engine: how many drafts a step accepted."""
    seen: set[int] = set()
    settle = llm.engine.scheduler.settle

    def spy(plan: Any, result: Any) -> Any:
        seen.update(found.num_accepted for row, found in zip(plan.rows, result.rows, strict=True) if row.num_drafts > 0)
        return settle(plan, result)

    llm.engine.scheduler.settle = spy  # type: ignore[method-assign]
    return seen


def mismatches(cases: Sequence[Case], outputs: Sequence[RequestOutput], expected: Sequence[Outcome]) -> list[str]:
    """Names of the cases that came out differently, and in what."""
    found = []
    for case, output, want in zip(cases, outputs, expected, strict=True):
        got = outcome(output)
        for field in Outcome.__dataclass_fields__:
            if getattr(got, field) != getattr(want, field):
                found.append(f"{case.name}: {field} {getattr(got, field)!r} is not {getattr(want, field)!r}")
                break
    return found
