"""Layers of several windows and head widths on a GPU: replayed, eager, in chunks and preempted, every request has the
tokens and digests that it has alone.
"""

import pytest

from outrider.core.kv_groups import BlockGroup
from tests.support import request_mix, windowed_model
from tests.support.models import windowed

NGRAM = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3, "num_speculative_tokens": 3}
NOISE = {"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


@pytest.fixture(params=[len(windowed.KINDS), len(windowed.WINDOWS_ONLY)], ids=["three groups", "windows only"])
def target(request, tmp_path, monkeypatch):
    windowed_model.find_it(monkeypatch)
    sizes = {"vocab_size": request_mix.VOCAB, "eos_token_id": request_mix.EOS}
    windowed_model.write(tmp_path / "target", num_layers=request.param, head_dim=64, **sizes)
    return tmp_path / "target"


@pytest.fixture
def cases():
    crowd = request_mix.make_cases()
    return [crowd[number] for number in (0, 1, 2, 4, 6, 8, 10, 13, 16)]


def make(target, **options):
    return request_mix.make(target, **{"load_format": "dummy", "seed": 3, "device": "cuda"} | options)


@pytest.fixture
def truth(target, cases):
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, enforce_eager=True)
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


RUNS = {
    "crowd": {},
    "eager": {"enforce_eager": True, "max_num_batched_tokens": 64},
    "chunks": {"max_num_batched_tokens": 37, "max_num_seqs": 4},
    "ngram": {"speculative_config": NGRAM, "max_num_batched_tokens": 60},
    "noise": {"speculative_config": NOISE},
    "preempted": {"num_gpu_blocks_override": 16, "max_num_batched_tokens": 40},
}


def test_each_request_is_as_it_is_alone(target, cases, truth):
    for name, options in RUNS.items():
        llm = make(target, **options)
        for _ in range(2):  # the second time behind cached prefixes
            assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == [], name
        assert all(pool.num_free == pool.num_usable for pool in llm.engine.scheduler.blocks.pools)


def test_a_block_given_back_too_early_is_seen(target, cases, truth, monkeypatch):
    original = BlockGroup.first_needed_block
    monkeypatch.setattr(BlockGroup, "first_needed_block", lambda self, index: original(self, index + 16))
    try:
        wrong = request_mix.mismatches(cases, request_mix.run(make(target), cases), truth)
    except AssertionError as error:
        wrong = [str(error)]
    assert wrong
