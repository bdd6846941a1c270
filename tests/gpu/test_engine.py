"""The engine on a GPU: tokens and digests of the zoo, alone and in crowds, with and without speculation and graphs.

The truth is each request alone, eager, without speculation. What a CPU gives is not compared: bits belong to a
platform.
"""

import pytest
import torch

from tests.support import request_mix
from tests.support.combination_cover import make_cover

from .gpu_engine import EAGLE3, ZOO, ZOO_EOS


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


@pytest.fixture(scope="module")
def cases():
    return request_mix.make_cases(ZOO_EOS)


@pytest.fixture(scope="module")
def truth(cases):
    llm = request_mix.make(
        ZOO / "tiny",
        device="cuda",
        max_num_seqs=1,
        overlap_depth=0,
        enable_prefix_caching=False,
        max_num_batched_tokens=512,
        enforce_eager=True,
    )
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


@pytest.fixture(scope="module")
def speculative(cases, truth):
    return {
        "none": None,
        "ngram": {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
        "eagle3": EAGLE3,
        "eagle3, adaptive": EAGLE3 | {"adaptive": True},
        "noise": {"method": "tests.support.drafters.noise"},
        "draft_model": {"method": "draft_model", "model": str(ZOO / "tiny-draft")},
        "replay": request_mix.replay(cases, truth),
    }


DIMENSIONS = {
    "drafter": ["none", "ngram", "eagle3", "eagle3, adaptive", "draft_model", "replay", "noise"],
    "k": [1, 3, 5],
    "chunk": [7, 60, 2048],
    "rows": [1, 5, 64],
    "blocks": [24, None],
    "eager": [True, False],
    "prefix": [True, False],
    "depth": [0, 1],
}


@pytest.mark.parametrize("run", make_cover(DIMENSIONS, seed=1), ids=lambda run: " ".join(map(str, run.values())))
def test_tokens_and_digests_are_those_of_the_request_alone(run, cases, truth, speculative):
    config = speculative[run["drafter"]]
    if config is not None:
        config = {**config, "num_speculative_tokens": run["k"]}
    llm = request_mix.make(
        ZOO / "tiny",
        device="cuda",
        speculative_config=config,
        max_num_batched_tokens=max(run["chunk"], 1 + run["k"]),
        max_num_seqs=run["rows"],
        num_gpu_blocks_override=run["blocks"],
        enforce_eager=run["eager"],
        enable_prefix_caching=run["prefix"],
        overlap_depth=run["depth"],
    )
    assert (llm.engine.worker.num_graphs == 0) == (run["eager"] or run["drafter"] == "noise")
    for _ in range(2 if run["prefix"] else 1):
        outputs = request_mix.run(llm, cases)
        assert request_mix.mismatches(cases, outputs, truth) == []
    if run["drafter"] == "replay":
        counts = [output.speculation.num_accepted_tokens for output in outputs]
        assert sum(counts) > 0


def test_long_outputs_of_a_crowd_of_64(speculative):
    shared = request_mix.make_cases(ZOO_EOS)[1].prompt
    cases = [
        request_mix.Case(
            str(index),
            (*shared[: 5 + index % 30], 3 + index),
            request_mix.SamplingParams(
                max_tokens=1900 if index % 16 == 0 else 200, ignore_eos=True, seed=index, temperature=(index % 3) * 0.5
            ),
        )
        for index in range(64)
    ]
    plain = request_mix.make(ZOO / "tiny", device="cuda", max_model_len=2048, max_num_seqs=64)
    expected = [request_mix.outcome(output) for output in request_mix.run(plain, cases)]
    for index in (0, 1, 16):
        alone = request_mix.run(plain, cases[index : index + 1])
        assert request_mix.mismatches(cases[index : index + 1], alone, expected[index : index + 1]) == []
    llm = request_mix.make(
        ZOO / "tiny", device="cuda", max_model_len=2048, max_num_seqs=64,
        speculative_config=EAGLE3,
    )  # fmt: skip
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), expected) == []


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("drafter", ["none", "ngram", "eagle3", "eagle3, adaptive", "draft_model", "replay"])
@pytest.mark.parametrize("eager", [False, True])
def test_no_step_waits_for_the_device(drafter, eager, cases, speculative):
    """PyTorch's sync-debug mode as an error, with prompt chunks, decode rows, penalties and log-probabilities."""
    llm = request_mix.make(
        ZOO / "tiny", device="cuda", speculative_config=speculative[drafter], max_num_batched_tokens=60,
        enforce_eager=eager,
    )  # fmt: skip
    outputs = request_mix.run(llm, cases)  # kernels are compiled, graphs captured
    engine = llm.engine
    for case in cases:
        engine.add(engine.new_request({"prompt_token_ids": list(case.prompt)}, case.params))
    finished = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        while engine.has_work:
            finished += engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    finished.sort(key=lambda output: int(output.request_id))
    assert [request_mix.outcome(a) for a in finished] == [request_mix.outcome(b) for b in outputs]
