"""Layers of several windows and shapes: every request has its own tokens and digests in each group's blocks.

The model is `tests/support/models/windowed.py`. What a step needs of a group, its block table, slots and pool, may be
wrong for one group alone: each run here is compared with each request alone, and those with the definition.
"""

import functools

import pytest
import torch

from outrider.core.kv_groups import BlockGroup
from tests.support import request_mix, windowed_model
from tests.support.models import windowed

LOADED = {"load_format": "dummy", "seed": 3}
NGRAM = {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3, "num_speculative_tokens": 3}
KINDS = {"three groups": windowed.KINDS, "windows only": windowed.WINDOWS_ONLY}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A model of each kind; only its config.json is written."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        windowed_model.find_it(monkeypatch)
        made = {kind: tmp_path_factory.mktemp("windowed") for kind in KINDS}
        for kind, directory in made.items():
            windowed_model.write(
                directory, num_layers=len(KINDS[kind]), vocab_size=request_mix.VOCAB, eos_token_id=request_mix.EOS
            )
        yield made


@pytest.fixture(params=KINDS)
def target(request, directories):
    """The directory of a model with these layers."""
    return directories[request.param]


@pytest.fixture(scope="module")
def cases():
    crowd = request_mix.make_cases()
    return [crowd[number] for number in (0, 1, 2, 4, 6, 8, 10, 13, 16)]


def make(target, **options):
    return request_mix.make(target, **(LOADED | options))


def alone(target, cases) -> list[request_mix.Outcome]:
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, max_num_batched_tokens=512)
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


@pytest.fixture(scope="module")
def known(cases):
    """The truth about the cases, and second turns of some with theirs; found once for each model."""

    @functools.cache
    def find(target):
        truth = alone(target, cases)
        turns = request_mix.second_turns(cases[:3], truth[:3])
        return truth, (turns, alone(target, turns))

    return find


@pytest.fixture
def truth(target, known):
    return known(target)[0]


@pytest.fixture
def turns(target, known):
    return known(target)[1]


def all_blocks_are_free(llm) -> bool:
    return all(pool.num_free == pool.num_usable for pool in llm.engine.scheduler.blocks.pools)


def test_greedy_tokens_are_those_of_the_definition(target, cases, truth):
    model = make(target).engine.worker.model
    assert [case.name for case in cases[:2]] == ["greedy, long", "greedy, shared prefix"]
    for case, want in zip(cases[:2], truth, strict=False):
        ids = list(case.prompt + want.token_ids)
        logits = windowed_model.logits(model, ids[:-1])[len(case.prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(want.token_ids)[:, None]).squeeze(1)
        assert (logits.amax(dim=1) - chosen).max() < 1e-4, "the token is the most likely one"


SLOW = pytest.mark.slow
RUNS = {
    "crowd": {},
    "chunks": {"max_num_batched_tokens": 37, "max_num_seqs": 4},
    "each step settled first": {"overlap_depth": 0, "max_num_batched_tokens": 50},
    "ngram": {"speculative_config": NGRAM, "max_num_batched_tokens": 60},
    "noise": {"speculative_config": {"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}},
    "preempted": {"num_gpu_blocks_override": 16, "max_num_batched_tokens": 40},
    "preempted, ngram": {"num_gpu_blocks_override": 18, "speculative_config": NGRAM, "max_num_batched_tokens": 40},
}


@pytest.mark.parametrize(
    ("target", "run"),
    [
        pytest.param(kind, run, marks=() if kind == "three groups" or run in ("chunks", "preempted, ngram") else SLOW)
        for kind in KINDS
        for run in RUNS
    ],
    indirect=["target"],
)
def test_each_request_is_as_it_is_alone(target, cases, truth, run):
    llm = make(target, **RUNS[run])
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    assert all_blocks_are_free(llm)
    if run.startswith("preempted") and llm.engine.worker.groups[0].window is None:
        assert llm.engine.scheduler.num_preemptions > 0


@pytest.mark.parametrize("speculative", [None, NGRAM], ids=["", "ngram"])
def test_prefixes_are_found_in_every_group(target, cases, truth, turns, speculative):
    llm = make(target, speculative_config=speculative, max_num_batched_tokens=64)
    request_mix.run(llm, cases)
    for some, expected in ((cases, truth), turns):
        assert request_mix.mismatches(some, request_mix.run(llm, some), expected) == []
    assert llm.engine.scheduler.prefix.num_hit_tokens > 300


def test_a_draft_model_uses_the_groups_of_its_own_windows(target, cases, truth):
    """It has the target's layers, so nearly every draft is right."""
    config = {"method": "draft_model", "model": str(target), "num_speculative_tokens": 3}
    llm = make(target, speculative_config=config, max_num_batched_tokens=64)
    num_accepted = num_drafts = 0
    settle = llm.engine.scheduler.settle

    def counting(plan, result):
        nonlocal num_accepted, num_drafts
        num_accepted += sum(row.num_accepted for row in result.rows)
        num_drafts += sum(row.num_drafts for row in result.rows)
        return settle(plan, result)

    llm.engine.scheduler.settle = counting
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == [], "after hits too"
    assert num_accepted > 0.8 * num_drafts > 100


def test_blocks_that_a_window_has_passed_go_back(target, cases):
    llm = make(target, max_num_seqs=2)
    blocks, most = llm.engine.scheduler.blocks, {}
    original = llm.engine.scheduler.plan

    def plan():
        made = original()
        for index, pool in enumerate(blocks.pools):
            most[index] = max(most.get(index, 0), pool.num_usable - pool.num_free)
        return made

    llm.engine.scheduler.plan = plan
    request_mix.run(llm, cases[:1])
    assert len(cases[0].prompt) + cases[0].params.max_tokens == 155
    held = {group.window: most[index] for index, group in enumerate(llm.engine.worker.groups)}
    assert held[24] <= 4 and held[5] <= 3
    assert held.get(None, 10) == 10


def test_a_block_given_back_too_early_is_seen(target, cases, truth, monkeypatch):
    original = BlockGroup.first_needed_block
    monkeypatch.setattr(BlockGroup, "first_needed_block", lambda self, index: original(self, index + 16))
    try:
        wrong = request_mix.mismatches(cases, request_mix.run(make(target), cases), truth)
    except AssertionError as error:
        wrong = [str(error)]
    assert wrong
