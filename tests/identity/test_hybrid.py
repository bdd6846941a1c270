"""A hybrid under everything that may happen to a request: its tokens and logits are those of each request alone.

Its layers have a recurrent state, which others have lost to rejected drafts, permuted rows and mixed steps. What made
them lose it is put in here, one at a time: each must turn this suite red (in `make test-all`).
"""

from dataclasses import replace

import pytest
import torch

from outrider import SamplingParams
from outrider.attention.caches.delta_state import StateCache
from outrider.device.assemble import Assembler
from outrider.kernels.reference import gated_delta, step_inputs
from outrider.runtime import worker
from outrider.runtime.step import Step
from outrider.scheduler.prefix import PrefixCache
from outrider.scheduler.scheduler import Scheduler
from outrider.scheduler.snapshots import Snapshots
from tests.support import hybrid_requests, request_mix
from tests.support.changing_drafts import change_drafts
from tests.support.half_right_drafts import make_half_right
from tests.support.shorter_hits import shorten_hits

LAYERS = ["linear_attention", "full_attention", "linear_attention"]
SHORT = slice(10)
SOME = slice(6)
ALL = slice(None)
LONG = slice(7, None)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hybrid")
    hybrid_requests.write(directory, "qwen3_5", LAYERS)
    return directory


@pytest.fixture(scope="module")
def cases():
    """Some of the crowd, one of them over with its first token, and one that goes on for hundreds of tokens."""
    crowd = request_mix.make_cases()
    return [*(crowd[number] for number in (1, 2, 18, 13, 7, 5, 10, 12, 16, 17)), hybrid_requests.long_case(1)]


@pytest.fixture(scope="module")
def truth(target, cases):
    return hybrid_requests.truth(target, cases)


@pytest.fixture(scope="module")
def replay(cases, truth):
    return request_mix.replay(cases, truth)


@pytest.fixture
def half_right(cases, truth, monkeypatch):
    """Drafts of the module are right or wrong by position."""
    make_half_right(monkeypatch, [(case.prompt, want.token_ids) for case, want in zip(cases, truth, strict=True)])


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("drafter", "k", "some", "options"),
    [
        pytest.param("none", 0, SHORT, {"max_num_batched_tokens": 41}, marks=pytest.mark.slow),
        pytest.param("none", 0, SHORT, {"num_gpu_blocks_override": 18, "max_num_seqs": 24}, marks=pytest.mark.slow),
        pytest.param("ngram", 3, SHORT, {"max_num_batched_tokens": 33, "overlap_depth": 0}, marks=pytest.mark.slow),
        ("tests.support.drafters.noise", 3, SHORT, {"max_num_batched_tokens": 100}),
        pytest.param("mtp", 1, SHORT, {"max_num_batched_tokens": 29}, marks=pytest.mark.slow),
        ("mtp", 3, SHORT, {"num_gpu_blocks_override": 18, "max_num_seqs": 5}),
        pytest.param("replay", 1, SHORT, {"max_num_batched_tokens": 31}, marks=pytest.mark.slow),
        ("replay", 3, ALL, {"max_num_batched_tokens": 50}),
        pytest.param(
            "replay",
            8,
            LONG,
            {"max_num_batched_tokens": 128, "max_num_seqs": 6, "block_size": 32},
            marks=pytest.mark.slow,
        ),
        pytest.param("changing", 3, LONG, {"max_num_batched_tokens": 41, "block_size": 64}, marks=pytest.mark.slow),
    ],
)
def test_a_crowd_equals_each_alone(target, replay, cases, truth, half_right, drafter, k, some, options):
    config = None
    if drafter != "none":
        config = (replay if drafter in ("replay", "changing") else {"method": drafter}) | {"num_speculative_tokens": k}
    if k > 3:
        config = config | {"probability": 0.92}
    llm = hybrid_requests.make(target, speculative_config=config, **options)
    if drafter == "changing":
        change_drafts(llm, k)
    seen = request_mix.accepted_counts(llm)
    preempted = hybrid_requests.preempt_now_and_then(llm, every=23) if some.stop is None else []
    assert request_mix.mismatches(cases[some], request_mix.run(llm, cases[some]), truth[some]) == []
    if some.stop is None:
        assert max(preempted) > 400
    if "num_gpu_blocks_override" in options:
        assert llm.engine.scheduler.num_preemptions > 0
    if drafter in ("replay", "changing", "mtp"):
        assert seen == set(range(k + 1))


def found(target, replay, cases, truth, *, some: slice = SOME) -> list[str]:
    """Differences in a mix of requests with real acceptance, in chunks, overlapped."""
    config = replay | {"num_speculative_tokens": 3}
    llm = hybrid_requests.make(target, speculative_config=config, max_num_batched_tokens=38)
    return request_mix.mismatches(cases[some], request_mix.run(llm, cases[some]), truth[some])


def kinds_of_steps(monkeypatch) -> list[frozenset[str]]:
    """Watches the scheduler: what each step does for its rows."""
    seen: list[frozenset[str]] = []
    sampled: set[int] = set()  # epochs whose prompt has ended
    original = Scheduler.plan

    def plan(self):
        found = original(self)
        kinds = set()
        for row in found.rows if found is not None else ():
            if not row.does_sample:
                kinds.add("chunk")
            elif row.epoch not in sampled:
                kinds.add("last chunk" if row.num_tokens > 1 else "last chunk of one token")
                sampled.add(row.epoch)
            else:
                kinds.add("with drafts" if row.num_drafts else "without drafts")
        seen.append(frozenset(kinds))
        return found

    monkeypatch.setattr(Scheduler, "plan", plan)
    return seen


def test_the_crowd_of_the_leaks_mixes_all_kinds_of_rows(target, replay, cases, truth, monkeypatch):
    """A batch taken to be of one kind stopped the engine (vLLM #34871, #36917, #36918), and a last chunk of one token
    that looked like decoding took the gates of another row (#51812)."""
    seen = kinds_of_steps(monkeypatch)
    assert found(target, replay, cases, truth) == []
    assert any(kinds >= {"chunk", "last chunk", "with drafts", "without drafts"} for kinds in seen)
    assert any(kinds >= {"last chunk of one token", "with drafts", "without drafts"} for kinds in seen)


def test_a_state_keyed_by_batch_row(target, replay, cases, truth, monkeypatch):
    original = Assembler._states

    def states(self, layout, table, tokens):
        at = original(self, layout, table, tokens)
        return at._replace(rows=torch.arange(len(at.rows)))

    monkeypatch.setattr(Assembler, "_states", states)
    assert found(target, replay, cases, truth)


def test_another_rows_accepted_count(target, replay, cases, truth, monkeypatch):
    """The state of a row is read from its neighbour's place."""
    original = gated_delta.state_rows

    def state_rows(*columns, **arguments):
        starts, counts, sources, targets, known = original(*columns, **arguments)
        return starts, counts, sources, targets.roll(1), known

    monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    assert found(target, replay, cases, truth)


def test_a_state_that_moves_over_drafts(target, replay, cases, truth, monkeypatch):
    """Rejected drafts cannot be taken out of a state again."""
    original = gated_delta.state_rows

    def state_rows(*columns, num_known, num_drafts, **arguments):
        starts, counts, sources, _, known = original(*columns, num_known=num_known, num_drafts=num_drafts, **arguments)
        return starts, counts, sources, (starts + counts) // gated_delta.CHUNK * gated_delta.CHUNK, known

    monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    assert found(target, replay, cases, truth, some=SHORT)


def test_convolution_inputs_of_accepted_drafts_are_lost(target, replay, cases, truth, monkeypatch):
    original = gated_delta.finish_gated_delta

    def finish(*arguments):
        at = arguments[-1]
        is_decoding = torch.tensor([count <= 4 for count in at.row_counts])
        counts = torch.where(is_decoding, at.counts.clamp(max=1), at.counts)
        return original(*arguments[:-1], at._replace(counts=counts))

    monkeypatch.setattr(gated_delta, "finish_gated_delta", finish)
    assert found(target, replay, cases, truth)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a chunk", "a last chunk of one token"])
def test_gates_in_another_order_than_keys(target, replay, cases, truth, monkeypatch, kind):
    """Only in steps that mix prompt chunks with verify rows: vLLM #51812."""
    seen = kinds_of_steps(monkeypatch)
    original = gated_delta.gated_delta_rule

    def rule(q, k, v, log_decay, beta, *rest):
        counts = rest[-1].row_counts
        is_mixed = len(set(counts)) > 1
        if kind == "a last chunk of one token":
            is_mixed = "last chunk of one token" in seen[-1] and max(counts) > 1
        return original(q, k, v, log_decay, beta.flip(0) if is_mixed else beta, *rest)

    monkeypatch.setattr(gated_delta, "gated_delta_rule", rule)
    assert found(target, replay, cases, truth)


def test_lengths_that_the_host_guessed(target, replay, cases, truth, monkeypatch):
    """The most that a step may have accepted, taken for what it did: vLLM #38556."""
    original = step_inputs.commit

    def commit(token_ids, num_tokens, num_computed, *, rows, num_tokens_left, **arguments):
        original(token_ids, num_tokens, num_computed, rows=rows, num_tokens_left=num_tokens_left, **arguments)
        is_ahead = (num_tokens_left > 0) & (arguments["num_known"] == 1)
        most = torch.where(is_ahead, num_tokens[rows] - 1 + (3 - arguments["num_accepted"]), num_computed[rows])
        num_computed[rows] = torch.minimum(most, num_tokens[rows])

    monkeypatch.setattr(step_inputs, "commit", commit)
    assert found(target, replay, cases, truth)


def test_ids_that_are_no_tokens_reach_the_model(target, cases, truth, monkeypatch):
    """Drafts of noise hold -1 and worse. Stored as they are, they break the engine; cut by length, nothing differs."""
    llm = hybrid_requests.make(
        target, speculative_config={"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}
    )
    assert request_mix.mismatches(cases[:3], request_mix.run(llm, cases[:3]), truth[:3]) == []

    def put_drafts(drafts, num_drafts, *, rows, proposed, has_sampled, num_tokens, vocab_size, position_limit):
        drafts[rows.unsqueeze(1), torch.arange(proposed.shape[1])] = proposed
        num_drafts[rows] = torch.where(has_sampled, proposed.shape[1], 0)

    monkeypatch.setattr(step_inputs, "put_drafts", put_drafts)
    with pytest.raises(IndexError, match="index out of range"):
        request_mix.run(
            hybrid_requests.make(
                target, speculative_config={"method": "tests.support.drafters.noise", "num_speculative_tokens": 3}
            ),
            cases[:3],
        )


@pytest.fixture(scope="module")
def turns(target, cases, truth):
    """Second turns of some conversations, and the truth about them."""
    turns = request_mix.second_turns(cases[:4], truth[:4], max_tokens=12)
    return turns, hybrid_requests.truth(target, turns)


@pytest.mark.parametrize(
    ("drafter", "num_slots", "options"),
    [
        pytest.param("none", None, {"max_num_batched_tokens": 41}, marks=pytest.mark.slow),
        ("replay", None, {"max_num_batched_tokens": 50, "num_gpu_blocks_override": 36}),
        pytest.param("replay", 5, {"overlap_depth": 0, "max_num_seqs": 3}, marks=pytest.mark.slow),
        ("mtp", 6, {"max_num_batched_tokens": 37, "block_size": 32}),
        pytest.param("mtp", None, {"max_num_batched_tokens": 90, "block_size": 64}, marks=pytest.mark.slow),
    ],
)
def test_behind_cached_blocks_and_snapshots(
    target, replay, cases, truth, turns, half_right, monkeypatch, drafter, num_slots, options
):
    """Runs the requests twice, then second turns of conversations: they start behind snapshots, and nothing differs.
    With few slots, snapshots are overwritten all the time, so hits are certain only over the whole run."""
    if num_slots is not None:
        monkeypatch.setattr(worker, "size_snapshots", lambda *arguments, **named: num_slots)
    config = None if drafter == "none" else (replay if drafter == "replay" else {"method": drafter})
    llm = hybrid_requests.make(target, speculative_config=config, **options)
    prefix = llm.engine.scheduler.prefix
    crowd = SHORT if num_slots is None else SOME
    hits = []
    for some, expected in ((cases[crowd], truth[crowd]), (cases[crowd], truth[crowd]), turns):
        before = prefix.num_hit_tokens
        assert request_mix.mismatches(some, request_mix.run(llm, some), expected) == []
        hits.append(prefix.num_hit_tokens - before)
    assert hits[1] + hits[2] > 0
    if num_slots is None:
        assert hits[1] > 0 and hits[2] > 0


@pytest.mark.parametrize("block_size", [16, pytest.param(32, marks=pytest.mark.slow), 64])
def test_hits_do_not_fall_when_speculation_is_on(target, replay, cases, truth, half_right, block_size):
    """Every full block of a conversation is found again by its next turn, with every drafter."""
    mtp = {"method": "mtp", "num_speculative_tokens": 3}
    configs = (None, mtp, replay | {"num_speculative_tokens": 3}) if block_size == 16 else (None, mtp)
    for config in configs:
        llm = hybrid_requests.make(target, speculative_config=config, block_size=block_size)
        hits, most = hybrid_requests.hits_of_turns(llm, cases[:4], truth[:4])
        assert hits == most and max(most) > 0


def save_at_other_places_than_blocks_end(monkeypatch) -> None:
    new_snapshot = PrefixCache.new_snapshot

    def sparse(self, request, length, **arguments):
        return new_snapshot(self, request, length, **arguments) if length % 48 == 0 else None

    monkeypatch.setattr(PrefixCache, "new_snapshot", sparse)


def save_at_the_end_only(monkeypatch) -> None:
    settle = Snapshots.settle

    def settle_as_a_prompt(self, state, *, num_computed_before, is_decode):
        settle(self, state, num_computed_before=num_computed_before, is_decode=False)

    monkeypatch.setattr(Snapshots, "settle", settle_as_a_prompt)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("leak", "block_size"),
    [(shorten_hits, 16), (save_at_other_places_than_blocks_end, 16), (save_at_the_end_only, 32)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_hits_that_fall_are_seen(target, cases, truth, monkeypatch, leak, block_size):
    """Causes of fewer hits in other engines: the last block made again for the drafter, sparse snapshots whose places
    are not those of blocks, large blocks (vLLM #45238, #54360, #53504, #38182, #40624, #33270, #44986, #46971)."""
    leak(monkeypatch)
    hits, most = hybrid_requests.hits_of_turns(
        hybrid_requests.make(target, block_size=block_size), cases[:4], truth[:4]
    )
    assert sum(hits) < sum(most)


def test_a_hit_without_a_snapshot(target, cases, truth, monkeypatch):
    """Blocks are found, and the request starts behind them from whatever its row held."""
    some, expected = cases[:4], truth[:4]
    llm = hybrid_requests.make(target)
    monkeypatch.setattr(StateCache, "load", lambda self, kernels, **arguments: None)
    request_mix.run(llm, some)
    assert request_mix.mismatches(some, request_mix.run(llm, some), expected)


def test_a_snapshot_of_a_row_that_has_a_new_owner(target, cases, truth, monkeypatch):
    """The next step has begun to write what one step reads: vLLM #51571, #56736. Snapshots are taken before a row is
    given to another request; here after it."""
    some, expected = cases[:2], truth[:2]
    turns = request_mix.second_turns(some, expected, max_tokens=1)
    turns_truth = hybrid_requests.truth(target, turns)

    def differs() -> list[str]:
        llm = hybrid_requests.make(target, max_num_seqs=1)
        request_mix.run(llm, some)
        return request_mix.mismatches(turns, request_mix.run(llm, turns), turns_truth)

    assert differs() == []
    original = Step.admit

    def admit(self, plan):
        original(self, replace(plan, state_saves=()))
        self.snapshots.save(plan.state_saves)

    monkeypatch.setattr(Step, "admit", admit)
    assert differs()


def check_places(monkeypatch) -> None:
    """Whatever a step reads or writes lies where it may: a CPU would take a negative place from the other end."""
    rows_of, save, slot_of = gated_delta.state_rows, gated_delta.save_states, step_inputs.slot_of

    def state_rows(*columns, num_known, num_tokens_left, **arguments):
        starts, counts, sources, targets, known = rows_of(
            *columns, num_known=num_known, num_tokens_left=num_tokens_left, **arguments
        )
        assert (sources >= 0).all() and (sources <= targets).all(), "a state before the beginning"
        assert (sources <= starts).all() and (
            targets <= torch.where(num_tokens_left > 0, starts + num_known, sources)
        ).all()
        return starts, counts, sources, targets, known

    def save_states(*tensors, sources, lengths, slots, **arguments):
        assert (sources >= 0).all() and (sources <= lengths).all() and (slots >= 0).all()
        save(*tensors, sources=sources, lengths=lengths, slots=slots, **arguments)

    def slots_of(block_tables, place, is_valid, *, block_size):
        slots = slot_of(block_tables, place, is_valid, block_size=block_size)
        assert (place[is_valid] >= 0).all() and (slots[is_valid] >= block_size).all(), "a token in nobody's block"
        return slots

    monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    monkeypatch.setattr(gated_delta, "save_states", save_states)
    monkeypatch.setattr(step_inputs, "slot_of", slots_of)


@pytest.mark.parametrize("is_leaky", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_place_lies_in_its_table(target, cases, truth, half_right, monkeypatch, is_leaky):
    """An accepted count of 0 gave the index -1, and a write there ended the process: vLLM #50021."""
    if is_leaky:
        original = gated_delta.state_rows

        def state_rows(*columns, num_drafts, **arguments):
            starts, counts, sources, targets, known = original(*columns, num_drafts=num_drafts, **arguments)
            return starts, counts, sources + (counts - arguments["num_known"] - 1).clamp(max=0), targets, known

        monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    check_places(monkeypatch)
    config = {"method": "mtp", "num_speculative_tokens": 3}
    llm = hybrid_requests.make(target, speculative_config=config, max_num_seqs=4)
    hybrid_requests.preempt_now_and_then(llm, every=11)
    if is_leaky:
        with pytest.raises(AssertionError, match="before the beginning"):
            request_mix.run(llm, cases[SOME])
        return
    for _ in range(2):
        assert request_mix.mismatches(cases[SOME], request_mix.run(llm, cases[SOME]), truth[SOME]) == []
    assert llm.engine.scheduler.num_preemptions > 0 and llm.engine.scheduler.prefix.num_hit_tokens > 0


def test_a_snapshot_of_a_state_that_ran_ahead(target, replay, cases, truth, monkeypatch):
    """A stop found late cuts what a step accepted; a state that had moved over it must not be published."""
    original = gated_delta.state_rows

    def state_rows(num_computed, state_lengths, state_known, **arguments):
        return original(num_computed, state_lengths, num_computed + 1, **arguments)

    prompt, answer = cases[-1].prompt, truth[-1].token_ids
    config = replay | {"num_speculative_tokens": 8, "probability": 1.0}
    # a request that goes on from the middle of a known answer, up to a token that is new to it, in a step's middle
    starts = [start for start in range(60, 400) if answer[start + 20] not in answer[start : start + 20]]
    turns = [((*prompt, *answer[:start]), answer[start : start + 21]) for start in starts]
    turns = [(first, text) for first, text in turns if (len(first) + 20) % 16 in range(9, 15)][:5]
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    on = [request_mix.Case("goes on", (*first, *text), params) for first, text in turns]
    expected = hybrid_requests.truth(target, on)

    def differs() -> list[str]:
        wrong = []
        for (first, text), case, want in zip(turns, on, expected, strict=True):
            llm = hybrid_requests.make(target, speculative_config=config)
            stop = SamplingParams(temperature=1.0, max_tokens=40, ignore_eos=True, stop_token_ids=[text[-1]], seed=7)
            output = request_mix.run(llm, [request_mix.Case("stops", first, stop)])[0]
            assert tuple(output.outputs[0].token_ids) == text
            outputs = request_mix.run(llm, [case])
            assert outputs[0].num_cached_tokens == (len(case.prompt) - 1) // 16 * 16
            wrong += request_mix.mismatches([case], outputs, [want])
        return wrong

    assert len(turns) == 5
    assert differs() == []
    monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    assert differs()
