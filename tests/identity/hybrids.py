"""Tiny hybrids for this folder: a request that goes on for hundreds of tokens, second turns of conversations, requests
that are preempted, and a look at what the engine did.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import crowd as crowds

from outrider import LLM, SamplingParams
from tiny_mtp import write_hybrid

LONG = 520
MAX_MODEL_LEN = 640


def write(directory: Path, family: str, layer_types: Sequence[str]) -> None:
    """A random one with its prediction module."""
    write_hybrid(
        directory, family, vocab_size=crowds.VOCAB, max_position_embeddings=MAX_MODEL_LEN, eos_token_id=crowds.EOS,
        seed=3, num_hidden_layers=len(layer_types), layer_types=list(layer_types),
    )  # fmt: skip


def long_case(temperature: int) -> crowds.Case:
    """One that goes on and on."""
    params = SamplingParams(temperature=temperature, max_tokens=LONG, ignore_eos=True, seed=7)
    return crowds.Case(f"long, temperature {temperature}", (*crowds.crowd()[0].prompt, temperature + 3), params)


def make(target: Path, **options: Any) -> LLM:
    return crowds.make(target, **{"max_model_len": MAX_MODEL_LEN, "max_num_batched_tokens": 64} | options)


def truth(target: Path, cases: Sequence[crowds.Case]) -> list[crowds.Outcome]:
    """As `crowds.truth`, for longer requests."""
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False)
    return [crowds.outcome(crowds.run(llm, [case])[0]) for case in cases]


def hits_of_turns(
    llm: LLM, cases: Sequence[crowds.Case], expected: Sequence[crowds.Outcome]
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt that each second turn found in the cache, and those it could: all full blocks behind the
    first turn's computed tokens."""
    crowds.run(llm, cases)
    turns = crowds.run(llm, crowds.second_turns(cases, expected, max_tokens=1))
    size = llm.engine.config.block_size
    most = [
        (len(case.prompt) + len(want.token_ids) - 1) // size * size for case, want in zip(cases, expected, strict=True)
    ]
    return [turn.num_cached_tokens for turn in turns], most


def preempt_now_and_then(llm: LLM, *, every: int) -> list[int]:
    """Every so many steps the longest running request, or in turn the shortest, has to start again. Gives the numbers
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
