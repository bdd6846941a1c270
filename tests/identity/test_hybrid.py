"""A hybrid under everything that may happen to a request: its tokens and logits are those of each request alone.

Its layers have a recurrent state, which others have lost to rejected drafts, permuted rows and mixed steps. What made
them lose it is put in here, one at a time: each must turn this suite red.
"""

import crowd as crowds
import pytest
import torch

from outrider import SamplingParams
from outrider.attention.state import StateCache
from outrider.device.assemble import Assembler
from outrider.kernels.reference import gated_delta, index
from outrider.runtime import worker
from tiny_mtp import write_hybrid

LAYERS = ["linear_attention", "full_attention", "linear_attention"]
LONG = 520
NUM_SHORT = 9
MAX_MODEL_LEN = 640


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hybrid")
    write_hybrid(
        directory, "qwen3_5", vocab_size=crowds.VOCAB, max_position_embeddings=MAX_MODEL_LEN,
        eos_token_id=crowds.EOS, seed=3, num_hidden_layers=3, layer_types=LAYERS,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def cases():
    """Some of the crowd, and two that go on for hundreds of tokens."""
    crowd = crowds.crowd()
    some = [crowd[number] for number in (1, 2, 5, 7, 10, 12, 13, 16, 17)]
    long = [
        crowds.Case(
            f"long, temperature {temperature}", (*crowd[0].prompt, temperature + 3),
            SamplingParams(temperature=temperature, max_tokens=LONG, ignore_eos=True, seed=7),
        )
        for temperature in (0, 1)
    ]  # fmt: skip
    return some + long


@pytest.fixture(scope="module")
def truth(target, cases):
    return _truth(target, cases)


def _truth(target, cases):
    """As `crowds.truth`, for longer requests."""
    llm = make(target, max_num_seqs=1, overlap_depth=0, enable_prefix_caching=False)
    return [crowds.outcome(crowds.run(llm, [case])[0]) for case in cases]


@pytest.fixture(scope="module")
def replay(cases, truth):
    answers = [list(case.prompt) + list(want.token_ids) for case, want in zip(cases, truth, strict=True)]
    return {"method": "replay", "options": {"answers": answers}}


def make(target, **options):
    return crowds.make(target, **{"max_model_len": MAX_MODEL_LEN, "max_num_batched_tokens": 64} | options)


@pytest.mark.parametrize(
    ("drafter", "k", "count", "options"),
    [
        ("none", 0, NUM_SHORT, {"max_num_batched_tokens": 41}),
        ("none", 0, NUM_SHORT + 2, {"num_gpu_blocks_override": 60, "max_num_seqs": 24}),
        ("ngram", 3, NUM_SHORT, {"max_num_batched_tokens": 33, "overlap_depth": 0}),
        ("noise", 3, NUM_SHORT, {"max_num_batched_tokens": 100}),
        ("mtp", 1, NUM_SHORT, {"max_num_batched_tokens": 29}),
        ("mtp", 3, NUM_SHORT, {"num_gpu_blocks_override": 18, "max_num_seqs": 5}),
        ("replay", 1, NUM_SHORT, {"max_num_batched_tokens": 31}),
        ("replay", 3, NUM_SHORT + 2, {"max_num_batched_tokens": 50, "num_gpu_blocks_override": 60}),
        ("replay", 8, NUM_SHORT + 2, {"max_num_batched_tokens": 128, "max_num_seqs": 6}),
    ],
)
def test_a_crowd_equals_each_alone(target, replay, cases, truth, drafter, k, count, options):
    config = None
    if drafter != "none":
        config = (replay if drafter == "replay" else {"method": drafter}) | {"num_speculative_tokens": k}
    if k > 3:
        config = config | {"options": config["options"] | {"probability": 0.92}}
    llm = make(target, speculative_config=config, **options)
    seen = crowds.accepted_counts(llm)
    assert crowds.mismatches(cases[:count], crowds.run(llm, cases[:count]), truth[:count]) == []
    if "num_gpu_blocks_override" in options:
        assert llm.engine.scheduler.num_preemptions > 0
    if drafter == "replay":
        assert seen == set(range(k + 1))


def found(target, replay, cases, truth) -> list[str]:
    """What differs in a crowd with real acceptance, in chunks, overlapped."""
    llm = make(target, speculative_config=replay | {"num_speculative_tokens": 3}, max_num_batched_tokens=41)
    return crowds.mismatches(cases[:NUM_SHORT], crowds.run(llm, cases[:NUM_SHORT]), truth[:NUM_SHORT])


def test_a_state_keyed_by_batch_row(target, replay, cases, truth, monkeypatch):
    original = Assembler._states

    def states(self, layout, table, tokens):
        at = original(self, layout, table, tokens)
        return at._replace(rows=torch.arange(len(at.rows)))

    monkeypatch.setattr(Assembler, "_states", states)
    assert found(target, replay, cases, truth)


def test_another_rows_accepted_count(target, replay, cases, truth, monkeypatch):
    """The state of a row is taken where its neighbour's stands."""
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
    assert found(target, replay, cases, truth)


def test_convolution_inputs_of_accepted_drafts_are_lost(target, replay, cases, truth, monkeypatch):
    original = gated_delta.finish_gated_delta

    def finish(*arguments):
        at = arguments[-1]
        is_decoding = torch.tensor([count <= 4 for count in at.row_counts])
        counts = torch.where(is_decoding, at.counts.clamp(max=1), at.counts)
        return original(*arguments[:-1], at._replace(counts=counts))

    monkeypatch.setattr(gated_delta, "finish_gated_delta", finish)
    assert found(target, replay, cases, truth)


def test_gates_in_another_order_than_keys(target, replay, cases, truth, monkeypatch):
    """Only in steps that mix prompt chunks with verify rows."""
    original = gated_delta.gated_delta_rule

    def rule(q, k, v, log_decay, beta, *rest):
        is_mixed = len(set(rest[-1].row_counts)) > 1
        return original(q, k, v, log_decay, beta.flip(0) if is_mixed else beta, *rest)

    monkeypatch.setattr(gated_delta, "gated_delta_rule", rule)
    assert found(target, replay, cases, truth)


def test_ids_that_are_no_tokens_reach_the_model(target, cases, truth, monkeypatch):
    """Drafts of noise hold -1 and worse. Stored as they are, they break the engine; cut by length, nothing differs."""
    llm = make(target, speculative_config={"method": "noise", "num_speculative_tokens": 3})
    assert crowds.mismatches(cases[:3], crowds.run(llm, cases[:3]), truth[:3]) == []

    def put_drafts(drafts, num_drafts, *, rows, proposed, has_sampled, num_tokens, vocab_size, position_limit):
        drafts[rows.unsqueeze(1), torch.arange(proposed.shape[1])] = proposed
        num_drafts[rows] = torch.where(has_sampled, proposed.shape[1], 0)

    monkeypatch.setattr(index, "put_drafts", put_drafts)
    with pytest.raises((IndexError, RuntimeError)):
        crowds.run(make(target, speculative_config={"method": "noise", "num_speculative_tokens": 3}), cases[:3])


def _second_turns(cases, truth):
    """Conversations that go on: prompt and output of a case, and some more."""
    params = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    return [
        crowds.Case(f"{case.name}, second turn", case.prompt + want.token_ids + (9, 8, 7), params)
        for case, want in list(zip(cases, truth, strict=True))[:4]
    ]


@pytest.mark.parametrize(
    ("drafter", "num_slots", "options"),
    [
        ("none", None, {"max_num_batched_tokens": 41}),
        ("replay", None, {"max_num_batched_tokens": 50, "num_gpu_blocks_override": 36}),
        ("replay", 3, {"overlap_depth": 0, "max_num_seqs": 3}),
        ("mtp", 2, {"max_num_batched_tokens": 37}),
    ],
)
def test_behind_cached_blocks_and_snapshots(target, replay, cases, truth, monkeypatch, drafter, num_slots, options):
    """The same crowd again, then second turns of conversations: they start behind snapshots, and nothing differs. With
    few slots, snapshots are overwritten all the time."""
    if num_slots is not None:
        monkeypatch.setattr(worker, "size_snapshots", lambda *arguments, **named: num_slots)
    short, expected = cases[:NUM_SHORT], truth[:NUM_SHORT]
    turns = _second_turns(short, expected)
    turns_truth = _truth(target, turns)
    config = None if drafter == "none" else (replay if drafter == "replay" else {"method": drafter})
    llm = make(target, speculative_config=config, **options)
    for again in range(3):
        before = llm.engine.scheduler.prefix.num_hit_tokens
        assert crowds.mismatches(short, crowds.run(llm, short), expected) == []
        assert again == 0 or num_slots is not None or llm.engine.scheduler.prefix.num_hit_tokens > before
    outputs = crowds.run(llm, turns)
    assert crowds.mismatches(turns, outputs, turns_truth) == []


def _hits_of_turns(target, config, cases, truth, **options) -> list[int]:
    """Tokens that each second turn found, one conversation after the other."""
    turns = _second_turns(cases, truth)
    llm = make(target, speculative_config=config, **options)
    hits = []
    for case, turn in zip(cases, turns, strict=False):
        crowds.run(llm, [case])
        hits.append(crowds.run(llm, [turn])[0].num_cached_tokens)
    return hits


def test_hits_do_not_fall_when_speculation_is_on(target, replay, cases, truth):
    """Every full block of a conversation is found again by its next turn, whoever drafted."""
    some, wants = cases[:4], truth[:4]
    blocks = [(len(case.prompt) + len(want.token_ids) - 1) // 16 * 16 for case, want in zip(some, wants, strict=True)]
    for config in (None, replay | {"num_speculative_tokens": 3}, {"method": "mtp", "num_speculative_tokens": 1}):
        assert _hits_of_turns(target, config, some, wants) == blocks


def test_a_hit_without_a_snapshot(target, cases, truth, monkeypatch):
    """Blocks are found, and the request starts behind them from whatever its row held."""
    some, expected = cases[:4], truth[:4]
    llm = make(target)
    monkeypatch.setattr(StateCache, "load", lambda self, kernels, **arguments: None)
    crowds.run(llm, some)
    assert crowds.mismatches(some, crowds.run(llm, some), expected)


def test_a_snapshot_of_a_state_that_ran_ahead(target, replay, cases, truth, monkeypatch):
    """A stop found late cuts what a step accepted; a state that had moved over it must not be published."""
    original = gated_delta.state_rows

    def state_rows(num_computed, state_lengths, state_known, **arguments):
        return original(num_computed, state_lengths, num_computed + 1, **arguments)

    prompt, answer = cases[-1].prompt, truth[-1].token_ids
    config = replay | {"num_speculative_tokens": 8, "options": replay["options"] | {"probability": 1.0}}
    # a request that goes on from the middle of a known answer, up to a token that is new to it, in a step's middle
    starts = [start for start in range(60, 400) if answer[start + 20] not in answer[start : start + 20]]
    turns = [((*prompt, *answer[:start]), answer[start : start + 21]) for start in starts]
    turns = [(first, text) for first, text in turns if (len(first) + 20) % 16 in range(9, 15)][:5]
    on = [crowds.Case("goes on", (*first, *text), cases[0].params) for first, text in turns]
    expected = _truth(target, on)

    def differs() -> list[str]:
        wrong = []
        for (first, text), case, want in zip(turns, on, expected, strict=True):
            llm = make(target, speculative_config=config)
            stop = SamplingParams(temperature=1.0, max_tokens=40, ignore_eos=True, stop_token_ids=[text[-1]], seed=7)
            output = crowds.run(llm, [crowds.Case("stops", first, stop)])[0]
            assert tuple(output.outputs[0].token_ids) == text
            outputs = crowds.run(llm, [case])
            assert outputs[0].num_cached_tokens == (len(case.prompt) - 1) // 16 * 16
            wrong += crowds.mismatches([case], outputs, [want])
        return wrong

    assert len(turns) == 5
    assert differs() == []
    monkeypatch.setattr(gated_delta, "state_rows", state_rows)
    assert differs()
