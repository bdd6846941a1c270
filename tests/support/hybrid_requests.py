"""Tiny hybrid models and requests for them: long outputs, second turns of conversations, preemption."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outrider import LLM, SamplingParams
from tests.support import request_mix
from tests.support.tiny_mtp import write_hybrid

LONG = 520
MAX_MODEL_LEN = 640


def write(directory: Path, family: str, layer_types: Sequence[str]) -> None:
    """Write a random hybrid with its prediction module."""
    write_hybrid(
        directory, family, vocab_size=request_mix.VOCAB, max_position_embeddings=MAX_MODEL_LEN,
        eos_token_id=request_mix.EOS,
        seed=3, num_hidden_layers=len(layer_types), layer_types=list(layer_types),
    )  # fmt: skip


def long_case(temperature: int) -> request_mix.Case:
    """A request with an output of `LONG` tokens."""
    params = SamplingParams(temperature=temperature, max_tokens=LONG, ignore_eos=True, seed=7)
    return request_mix.Case(
        f"long, temperature {temperature}", (*request_mix.make_cases()[0].prompt, temperature + 3), params
    )


def make(target: Path, **options: Any) -> LLM:
    return request_mix.make(target, **{"max_model_len": MAX_MODEL_LEN, "max_num_batched_tokens": 64} | options)


def truth(target: Path, cases: Sequence[request_mix.Case]) -> list[request_mix.Outcome]:
    """`request_mix.truth` for longer requests."""
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False)
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


def hits_of_turns(
    llm: LLM, cases: Sequence[request_mix.Case], expected: Sequence[request_mix.Outcome]
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt that each second turn found in the cache, and those it could: all full blocks of the
    first turn's computed tokens."""
    request_mix.run(llm, cases)
    turns = request_mix.run(llm, request_mix.second_turns(cases, expected, max_tokens=1))
    size = llm.engine.config.block_size
    most = [
        (len(case.prompt) + len(want.token_ids) - 1) // size * size for case, want in zip(cases, expected, strict=True)
    ]
    return [turn.num_cached_tokens for turn in turns], most


def preempt_now_and_then(llm: LLM, *, every: int) -> list[int]:
    """At regular steps the longest running request, or in turn the shortest, has to start again. Gives the numbers
    of tokens that they had."""
    scheduler = llm.engine.scheduler
    lengths: list[int] = []
    original = scheduler.plan

    def plan():
        if scheduler.running and scheduler.num_steps >= every * (len(lengths) + 1):
            choose = (max, min)[len(lengths) % 2]
            request = choose(scheduler.running, key=lambda request: request.num_tokens)
            lengths.append(request.num_tokens)
            scheduler._preempt(request)
        return original()

    scheduler.plan = plan
    return lengths
