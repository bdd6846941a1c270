"""The identity matrix: whatever the engine does, every request comes out as it does alone and without speculation.

Equality of tokens, logits digests, log-probabilities and stop, never a percentage. `make test` runs a cover of all
pairs of options, `make test-all` a cover of all triples, `make matrix` every combination.
"""

import itertools
import random

import pytest

from tests.support import request_mix
from tests.support.changing_drafts import change_drafts
from tests.support.combination_cover import combinations_of, make_cover

DIMENSIONS = {
    "drafter": (
        "none",
        "ngram",
        "eagle3",
        "eagle3 speculators",
        "eagle3 to position 60",
        "draft model",
        "noise",
        "replay",
    ),
    "k": (1, 3, 5),
    "drafts": ("k", "changing"),
    "budget": (512, 41, 13),
    "crowd": ("all", "three", "one"),
    "blocks": ("ample", "tight"),
    "prefix": ("off", "cold", "warm"),
    "depth": (0, 1),
}
COVER = make_cover(DIMENSIONS, seed=5)
TRIPLES = make_cover(DIMENSIONS, seed=6, strength=3)
FULL = [dict(zip(DIMENSIONS, values, strict=True)) for values in itertools.product(*DIMENSIONS.values())]
random.Random(1).shuffle(FULL)  # so that a run which is stopped early has seen a fair sample
TIGHT = 14  # usable blocks: one long request fits, two do not

_counts_seen: dict[int, set[int]] = {}


def name_of(run) -> str:
    return "-".join(str(value).replace(" ", "_") for value in run.values())


def _pick(cases, expected, how: str, *, seed: int):
    """The cases of one run, in an order of its own."""
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)
    order = order[: {"all": len(order), "three": 3, "one": 1}[how]]
    return [cases[i] for i in order], [expected[i] for i in order]


def check(run, *, target, speculative, cases, truth, seed):
    options = {
        "max_num_batched_tokens": run["budget"],
        "enable_prefix_caching": run["prefix"] != "off",
        "overlap_depth": run["depth"],
        "max_num_seqs": 16,
    }
    if run["blocks"] == "tight":
        options["num_gpu_blocks_override"] = TIGHT + 1
    config = speculative[run["drafter"]]
    if config is not None:
        options["speculative_config"] = config | {"num_speculative_tokens": run["k"]}
    chosen, expected = _pick(cases, truth, run["crowd"], seed=seed)
    llm = request_mix.make(target, **options)
    if run["drafts"] == "changing" and config is not None:
        change_drafts(llm, run["k"])
    if run["prefix"] == "warm":
        request_mix.run(llm, chosen)
    outputs = request_mix.run(llm, chosen)
    assert request_mix.mismatches(chosen, outputs, expected) == []
    pool = llm.engine.scheduler.pool
    assert pool.num_free == pool.num_usable, "blocks were lost"
    if run["blocks"] == "tight" and run["crowd"] == "all" and run["prefix"] == "off":
        assert llm.engine.scheduler.num_preemptions > 0
    if run["prefix"] == "warm" and run["blocks"] == "ample":
        assert all(
            out.num_cached_tokens == ((len(out.prompt_token_ids) - 1) // 16 * 16 if out.prompt_logprobs is None else 0)
            for out in outputs
        )
    return outputs


@pytest.mark.parametrize(("cover", "strength", "most"), [(COVER, 2, 50), (TRIPLES, 3, 200)], ids=["pairs", "triples"])
def test_cover_has_every_combination(cover, strength, most):
    covered = set().union(*(combinations_of(run, strength) for run in cover))
    wanted = set().union(*(combinations_of(run, strength) for run in FULL))
    assert covered == wanted
    assert len(cover) <= most


@pytest.mark.parametrize("run", COVER, ids=name_of)
def test_every_request_comes_out_as_alone(run, target, speculative, cases, truth):
    check(run, target=target, speculative=speculative, cases=cases, truth=truth, seed=COVER.index(run))


@pytest.mark.slow
@pytest.mark.parametrize("run", TRIPLES, ids=name_of)
def test_every_request_comes_out_as_alone_in_triples(run, target, speculative, cases, truth):
    check(run, target=target, speculative=speculative, cases=cases, truth=truth, seed=TRIPLES.index(run))


@pytest.mark.matrix
@pytest.mark.parametrize("run", FULL, ids=name_of)
def test_every_combination(run, target, speculative, cases, truth):
    check(run, target=target, speculative=speculative, cases=cases, truth=truth, seed=FULL.index(run))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_replay_is_accepted_at_every_count(k, target, speculative, cases, truth):
    config = speculative["replay"] | {"num_speculative_tokens": k}
    llm = request_mix.make(target, speculative_config=config)
    results = []
    settle = llm.engine.scheduler.settle

    def spy(plan, result):
        results.extend(row for row in result.rows if row.num_drafts == k)
        return settle(plan, result)

    llm.engine.scheduler.settle = spy
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert {row.num_accepted for row in results} == set(range(k + 1))


def test_acceptance_counts_do_not_depend_on_the_crowd(target, speculative, cases):
    cases = cases[1:16:3]
    config = speculative["eagle3"] | {"num_speculative_tokens": 3}
    together = request_mix.run(request_mix.make(target, speculative_config=config, max_num_batched_tokens=41), cases)
    alone = request_mix.make(target, speculative_config=config, max_num_seqs=1, overlap_depth=0)
    for case, output in zip(cases, together, strict=True):
        assert request_mix.run(alone, [case])[0].speculation == output.speculation, case.name


def test_a_draft_model_is_accepted_at_every_count(target, speculative, cases, truth):
    """Under the target's own noise it agrees at any temperature; and as counted alone, so in a crowd."""
    config = speculative["draft model"] | {"num_speculative_tokens": 3}
    together = request_mix.run(request_mix.make(target, speculative_config=config, max_num_batched_tokens=41), cases)
    assert request_mix.mismatches(cases, together, truth) == []
    some = [4, 11]
    alone = request_mix.make(target, speculative_config=config, max_num_seqs=1, overlap_depth=0)
    for index in some:
        assert request_mix.run(alone, [cases[index]])[0].speculation == together[index].speculation
    per_position = [
        sum(counts) for counts in zip(*(o.speculation.num_accepted_tokens_per_pos for o in together), strict=True)
    ]
    num_drafts = sum(output.speculation.num_drafts for output in together)
    assert num_drafts > per_position[0] > per_position[1] > per_position[2] > 0


def test_speculation_stats_add_up(target, speculative, cases, truth):
    for name in ("replay", "eagle3"):
        config = speculative[name] | {"num_speculative_tokens": 3}
        for output in request_mix.run(request_mix.make(target, speculative_config=config), cases):
            stats = output.speculation
            is_draft = [flag for tokens in output.outputs for flag in tokens.is_draft]
            num_tokens = sum(len(tokens.token_ids) for tokens in output.outputs)
            assert stats.num_accepted_tokens == sum(stats.num_accepted_tokens_per_pos) == sum(is_draft)
            assert len(is_draft) == num_tokens
            assert stats.num_accepted_tokens <= stats.num_draft_tokens <= 3 * stats.num_drafts
            assert stats.num_steps >= num_tokens - stats.num_accepted_tokens
            assert sorted(stats.num_accepted_tokens_per_pos, reverse=True) == stats.num_accepted_tokens_per_pos


@pytest.mark.parametrize("depth", [0, 1])
def test_another_number_of_drafts_in_every_step(depth, target, speculative, cases, truth):
    """Every number is asked for, planned and wholly accepted, and each follows each."""
    config = speculative["replay"] | {"num_speculative_tokens": 3}
    llm = request_mix.make(target, speculative_config=config, overlap_depth=depth, max_num_seqs=24)
    policy = change_drafts(llm, 3)
    results = []
    settle = llm.engine.scheduler.settle

    def spy(plan, result):
        results.extend((row.num_drafts, found.num_accepted) for row, found in zip(plan.rows, result.rows, strict=True))
        return settle(plan, result)

    llm.engine.scheduler.settle = spy
    outputs = request_mix.run(llm, cases)
    assert request_mix.mismatches(cases, outputs, truth) == []
    assert set(itertools.pairwise(policy.chosen)) == set(itertools.product(range(4), repeat=2))
    assert {(planned, accepted) for planned in range(4) for accepted in range(planned + 1)} <= set(results)


def test_adaptive_drafting_changes_no_token(target, speculative, cases, truth):
    """The engine's own policy, on the times of this machine, whatever they are."""
    for name in ("replay", "eagle3"):
        config = speculative[name] | {"num_speculative_tokens": 5, "adaptive": True}
        llm = request_mix.make(target, speculative_config=config)
        assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
        policy = llm.engine.scheduler.draft_policy
        assert policy.elapsed > 0 and policy.widths == (0, 1, 2, 3, 5)
