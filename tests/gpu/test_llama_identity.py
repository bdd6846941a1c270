"""The promise at full size: an 8B Llama shape gives the same tokens and logits in every setting.

The truth is each request alone, eager, without speculation, its prompt in one piece. Random weights give drafts no
chance, so the replay drafter, which knows the answers and is right with probability 0.7, stands for real acceptance.
"""

import gc
import random

import pytest
import torch

from benchmarks.decode import write_configs
from outrider import SamplingParams
from outrider.layers.linear import Linear
from tests.support import request_mix

from . import gpu_engine

LONG = 2000


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return write_configs(tmp_path_factory.mktemp("llama"))


def _prompt(count: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(128000) for _ in range(count))


@pytest.fixture(scope="module")
def cases():
    """One long output, a shared prefix, chunks, and parameters of every kind."""
    shared = _prompt(300, 1)
    some = [
        request_mix.Case(
            "long", _prompt(40, 2), SamplingParams(temperature=1.0, seed=4, max_tokens=LONG, ignore_eos=True)
        ),
        request_mix.Case("greedy", shared, SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)),
        request_mix.Case(
            "random", shared + _prompt(9, 3), SamplingParams(temperature=1.0, seed=5, max_tokens=60, ignore_eos=True)
        ),
        request_mix.Case(
            "truncated",
            _prompt(129, 4),
            SamplingParams(temperature=0.8, top_p=0.95, top_k=40, seed=6, max_tokens=60, ignore_eos=True),
        ),
        request_mix.Case(
            "penalties and log-probabilities",
            _prompt(17, 5),
            SamplingParams(
                temperature=0.9, repetition_penalty=1.2, frequency_penalty=0.3, logprobs=5, seed=7, max_tokens=60,
                ignore_eos=True,
            ),
        ),
    ]  # fmt: skip
    filler = SamplingParams(temperature=0.5, seed=1, max_tokens=40, ignore_eos=True)
    return some + [
        request_mix.Case(f"filler {index}", _prompt(20 + 7 * index, 10 + index), filler) for index in range(59)
    ]


def _closed(llm) -> None:
    del llm.engine
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def truth(directories, cases):
    llm = gpu_engine.make_llama(
        directories[0], max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, max_num_batched_tokens=4096,
        enforce_eager=True,
    )  # fmt: skip
    answers = [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases[:6]]
    _closed(llm)
    assert len(set(answers[0].token_ids)) > LONG // 2, "the text repeats: equality would show little"
    return answers


RUNS = [
    {"drafter": "none", "k": 0},
    {"drafter": "none", "k": 0, "eager": True, "chunk": 100},
    {"drafter": "replay", "k": 1},
    {"drafter": "replay", "k": 3, "chunk": 100, "blocks": 700},
    {"drafter": "replay", "k": 5, "prefix": False},
    {"drafter": "replay", "k": 3, "eager": True},
    {"drafter": "eagle3", "k": 3},
    {"drafter": "ngram", "k": 5, "depth": 0},
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(f"{name}={value}" for name, value in run.items()))
def test_a_crowd_of_64_gives_what_each_request_gives_alone(run, directories, cases, truth):
    target, head = directories
    config = {
        "none": None,
        "ngram": {"method": "ngram", "prompt_lookup_min": 1},
        "eagle3": {"method": "eagle3", "model": str(head)},
        "replay": request_mix.replay(cases[: len(truth)], truth),
    }[run["drafter"]]
    if config is not None:
        config = {**config, "num_speculative_tokens": run["k"]}
    llm = gpu_engine.make_llama(
        target,
        max_num_seqs=64,
        speculative_config=config,
        max_num_batched_tokens=run.get("chunk", 4096) if run.get("chunk", 4096) > 64 * (1 + run["k"]) else 512,
        num_gpu_blocks_override=run.get("blocks"),
        enforce_eager=run.get("eager", False),
        enable_prefix_caching=run.get("prefix", True),
        overlap_depth=run.get("depth", 1),
    )
    outputs = request_mix.run(llm, cases)
    few = len(truth)
    found = request_mix.mismatches(cases[:few], outputs[:few], truth)
    preemptions = llm.engine.scheduler.num_preemptions
    _closed(llm)
    assert found == []
    assert preemptions > 0 or "blocks" not in run
    if run["drafter"] == "replay":
        by_count = outputs[0].speculation.num_accepted_tokens_per_pos
        assert all(count > 0 for count in by_count), by_count


def test_a_stock_gemm_turns_the_comparison_red(directories, cases, monkeypatch):
    """cuBLAS sums another way when there are more rows."""
    monkeypatch.setattr(Linear, "forward", lambda self, x: torch.nn.functional.linear(x, self.weight, self.bias))
    llm = gpu_engine.make_llama(directories[0], max_num_seqs=64, enable_prefix_caching=False)
    some = cases[1:3]
    alone = [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in some]
    together = request_mix.run(llm, [*some, *cases[5:]])[:2]
    found = request_mix.mismatches(some, together, alone)
    _closed(llm)
    assert found != []
