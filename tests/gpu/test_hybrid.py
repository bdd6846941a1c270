"""The zoo's hybrid on a GPU under everything that may happen to a request: preemption, prompt chunks, every number of
accepted drafts, prefix hits behind snapshots, second turns.

The truth is each request alone, eager, without speculation.
"""

import pytest

from outrider import SamplingParams
from outrider.runtime import worker
from tests.support import request_mix

from .gpu_engine import ZOO, ZOO_EOS

TARGET = ZOO / "tiny-hybrid"
LONG, NUM_SHORT = 520, 15


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """Not here: the engine allocates through captured graphs."""


@pytest.fixture(scope="module")
def cases():
    """Some of the crowd, and three that go on for hundreds of tokens."""
    crowd = request_mix.make_cases(ZOO_EOS)
    long = [
        request_mix.Case(
            f"long, temperature {temperature}", (*crowd[0].prompt, temperature + 3),
            SamplingParams(temperature=temperature, max_tokens=LONG, ignore_eos=True, seed=7),
        )
        for temperature in (0, 1, 2)
    ]  # fmt: skip
    return [*crowd[:NUM_SHORT], *long]


def make(**options):
    return request_mix.make(TARGET, **{"device": "cuda", "max_model_len": 640, "max_num_batched_tokens": 64} | options)


def alone(cases):
    llm = make(max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False, enforce_eager=True)
    return [request_mix.outcome(request_mix.run(llm, [case])[0]) for case in cases]


@pytest.fixture(scope="module")
def truth(cases):
    return alone(cases)


@pytest.fixture(scope="module")
def drafters(cases, truth):
    return {
        "none": None,
        "noise": {"method": "tests.support.drafters.noise"},
        "mtp": {"method": "mtp"},
        "replay": request_mix.replay(cases, truth),
    }


@pytest.mark.parametrize(
    ("drafter", "k", "options"),
    [
        ("none", 0, {"max_num_batched_tokens": 41}),
        ("none", 0, {"num_gpu_blocks_override": 32, "block_size": 32, "max_num_seqs": 24}),
        ("noise", 3, {"max_num_batched_tokens": 100}),
        ("mtp", 1, {"max_num_batched_tokens": 29, "enforce_eager": True}),
        ("mtp", 3, {"num_gpu_blocks_override": 60, "max_num_seqs": 24}),
        ("mtp", 3, {"block_size": 64, "overlap_depth": 0}),
        ("mtp", 5, {"max_num_batched_tokens": 2048, "max_num_seqs": 6, "adaptive": True}),
        ("replay", 1, {"max_num_batched_tokens": 31}),
        ("replay", 3, {"max_num_batched_tokens": 50, "num_gpu_blocks_override": 60}),
        ("replay", 8, {"max_num_batched_tokens": 128, "max_num_seqs": 6}),
    ],
    ids=str,
)
def test_a_crowd_equals_each_alone(cases, truth, drafters, drafter, k, options):
    options = dict(options)
    config = drafters[drafter]
    if config is not None:
        config = config | {"num_speculative_tokens": k, "adaptive": options.pop("adaptive", False)}
    if k > 5:
        config = config | {"probability": 0.92}
    llm = make(speculative_config=config, **options)
    seen = request_mix.accepted_counts(llm)
    for _ in range(2):
        assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    if options.get("num_gpu_blocks_override"):
        assert llm.engine.scheduler.num_preemptions > 0
    if drafter == "replay" or (drafter == "mtp" and k == 3):
        assert seen == set(range(k + 1))


@pytest.fixture(scope="module")
def turns(cases, truth):
    some = [place for place, want in enumerate(truth) if len(cases[place].prompt + want.token_ids) < 560]
    found = request_mix.second_turns([cases[place] for place in some], [truth[place] for place in some])
    return found, alone(found)


@pytest.mark.parametrize(
    ("drafter", "num_slots", "options"),
    [
        ("none", None, {"max_num_batched_tokens": 41}),
        ("replay", None, {"max_num_batched_tokens": 50, "num_gpu_blocks_override": 60}),
        ("replay", 3, {"overlap_depth": 0, "max_num_seqs": 3}),
        ("mtp", 2, {"max_num_batched_tokens": 37}),
        ("mtp", None, {}),
    ],
)
def test_behind_cached_blocks_and_snapshots(cases, truth, turns, drafters, monkeypatch, drafter, num_slots, options):
    """Serves the crowd once more, then second turns of conversations. With few slots, snapshots are overwritten all the
    time."""
    if num_slots is not None:
        monkeypatch.setattr(worker, "size_snapshots", lambda *arguments, **named: num_slots)
    llm = make(speculative_config=drafters[drafter], **options)
    hits = []
    for some, expected in ((cases, truth), (cases, truth), turns):
        before = llm.engine.scheduler.prefix.num_hit_tokens
        assert request_mix.mismatches(some, request_mix.run(llm, some), expected) == []
        hits.append(llm.engine.scheduler.prefix.num_hit_tokens - before)
    assert hits[1] + hits[2] > 0
    if num_slots is None:
        assert hits[1] > 0 and hits[2] > 0


def test_hits_do_not_fall_when_speculation_is_on(cases, truth, turns, drafters):
    """Every full block of a conversation is found again by its next turn, with every drafter."""
    some = [(case, want, turn) for case, want, turn in zip(cases[:4], truth[:4], turns[0][:4], strict=True)]
    blocks = [(len(case.prompt) + len(want.token_ids) - 1) // 16 * 16 for case, want, _ in some]
    for drafter in ("none", "replay", "mtp"):
        llm = make(speculative_config=drafters[drafter])
        hits = []
        for case, _, turn in some:
            request_mix.run(llm, [case])
            hits.append(request_mix.run(llm, [turn])[0].num_cached_tokens)
        assert hits == blocks
