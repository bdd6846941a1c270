"""Hybrids with experts, Qwen3.5-MoE and Qwen3-Next, as `test_hybrid.py` has the dense one: in fewer runs, each of which
chunks, preempts, caches and refuses drafts at every count.
"""

import pytest

from tests.support import hybrid_requests, request_mix
from tests.support.half_right_drafts import make_half_right

K = 3
LAYERS = {"qwen3_5_moe": ("linear_attention", "full_attention"), "qwen3_next": ("full_attention", "linear_attention")}
BLOCK_SIZE = {"qwen3_5_moe": 32, "qwen3_next": 64}
"""Block size of the run with conversations; the other run has 16."""
TEMPERATURE = {"qwen3_5_moe": 0, "qwen3_next": 1}
"""Temperature of the request with hundreds of tokens."""


@pytest.fixture(scope="module", params=["qwen3_5_moe", pytest.param("qwen3_next", marks=pytest.mark.slow)])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def target(family, tmp_path_factory):
    directory = tmp_path_factory.mktemp(family)
    hybrid_requests.write(directory, family, LAYERS[family])
    return directory


@pytest.fixture(scope="module")
def cases(family):
    """A few of the crowd, and a long one at the end."""
    return [
        *(request_mix.make_cases()[number] for number in (2, 13, 7, 18)),
        hybrid_requests.long_case(TEMPERATURE[family]),
    ]


@pytest.fixture(scope="module")
def truth(target, cases):
    return hybrid_requests.truth(target, cases)


def test_a_preempted_crowd_equals_each_alone(target, cases, truth):
    config = request_mix.replay(cases, truth) | {"num_speculative_tokens": K}
    llm = hybrid_requests.make(target, speculative_config=config, max_num_batched_tokens=37)
    seen, preempted = request_mix.accepted_counts(llm), hybrid_requests.preempt_now_and_then(llm, every=23)
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert len(outputs[-1].outputs[0].token_ids) == hybrid_requests.LONG
    assert seen == set(range(K + 1))
    assert max(preempted) > 400


def test_conversations_go_on_behind_snapshots(family, target, cases, truth, monkeypatch):
    """With the module's own drafts, half of them right: the same again, then second turns."""
    cases, truth = cases[:4], truth[:4]
    turns = request_mix.second_turns(cases, truth, max_tokens=12)
    turns_truth = hybrid_requests.truth(target, turns)
    known = [(case.prompt, want.token_ids) for case, want in zip(cases + turns, truth + turns_truth, strict=True)]
    make_half_right(monkeypatch, known)
    config = {"method": "mtp", "num_speculative_tokens": K}
    llm = hybrid_requests.make(
        target, speculative_config=config, max_num_batched_tokens=41, max_num_seqs=3, block_size=BLOCK_SIZE[family]
    )
    seen = request_mix.accepted_counts(llm)
    for some, expected in ((cases, truth), (cases, truth), (turns, turns_truth)):
        outputs = request_mix.run(llm, some)
        assert request_mix.mismatches(some, outputs, expected) == []
    assert seen == set(range(K + 1))
    size = BLOCK_SIZE[family]
    most = [
        (len(case.prompt) + len(want.token_ids) - 1) // size * size for case, want in zip(cases, truth, strict=True)
    ]
    assert [output.num_cached_tokens for output in outputs] == most


@pytest.mark.parametrize("method", [None, "mtp"])
def test_hits_do_not_fall_when_speculation_is_on(target, cases, truth, method):
    config = {"method": method, "num_speculative_tokens": 1} if method else None
    hits, most = hybrid_requests.hits_of_turns(
        hybrid_requests.make(target, speculative_config=config), cases[:4], truth[:4]
    )
    assert hits == most and min(most) > 0
