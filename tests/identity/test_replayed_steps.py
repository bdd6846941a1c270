"""Steps that are replayed, prompts and decoding mixed, give each request what it gets alone; and leaks put in on
purpose, one at a time, turn the comparison red.

A replay reads nothing but its buffer and the table, so this is a test of padded layouts. Graphs of a GPU are tested in
`tests/gpu`.
"""

from dataclasses import replace

import pytest

from outrider.device import graphs
from outrider.device.padded_layout import PaddedSizes
from tests.support import hybrid_requests, replaying_platform, request_mix


@pytest.fixture(autouse=True)
def device(monkeypatch, tmp_path):
    replaying_platform.install(monkeypatch, tmp_path)


def make(target, **options):
    return request_mix.make(target, device="replaying", **options)


def share_replayed(llm) -> float:
    return llm.engine.worker.num_replayed_steps / llm.engine.scheduler.num_steps


RUNS = {
    "none": ("none", {"max_num_batched_tokens": 41, "max_num_seqs": 9}),
    "ngram": ("ngram", {"max_num_batched_tokens": 100, "overlap_depth": 0}),
    "eagle3": ("eagle3", {"max_num_batched_tokens": 60, "max_num_seqs": 12}),
    "preempted": ("replay", {"num_gpu_blocks_override": 24, "max_num_batched_tokens": 50, "overlap_depth": 0}),
    "draft model": ("draft model", {"max_num_batched_tokens": 400}),
}


SLOW = ("ngram", "draft model")


@pytest.mark.parametrize("run", [pytest.param(run, marks=pytest.mark.slow if run in SLOW else ()) for run in RUNS])
def test_a_crowd_equals_each_alone(target, cases, truth, speculative, run):
    drafter, options = RUNS[run]
    llm = make(target, speculative_config=speculative[drafter], **options)
    for _ in range(2):
        assert request_mix.mismatches(cases, request_mix.run(llm, cases), truth) == []
    assert share_replayed(llm) > 0.9, "only scored prompts are launched kernel by kernel"


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("drafter", [pytest.param("none", marks=pytest.mark.slow), "mtp"])
def test_a_hybrid_equals_each_alone(tmp_path, cases, drafter):
    hybrid_requests.write(tmp_path / "hybrid", "qwen3_5", ["linear_attention", "full_attention"])
    some = [cases[number] for number in (1, 2, 4, 6, 10, 13, 18)]
    truth = hybrid_requests.truth(tmp_path / "hybrid", some)
    config = {"method": drafter, "num_speculative_tokens": 3} if drafter != "none" else None
    llm = make(tmp_path / "hybrid", speculative_config=config, max_num_batched_tokens=70, max_num_seqs=7)
    for _ in range(2):
        assert request_mix.mismatches(some, request_mix.run(llm, some), truth) == []
    assert share_replayed(llm) == 1.0


def test_usual_requests_need_no_graph_that_was_not_captured_at_the_start(
    target, cases, truth, speculative, monkeypatch, tmp_path
):
    """Greedy and random ones, with prompts of every length beside any number of decode rows."""
    monkeypatch.undo()
    replaying_platform.install(monkeypatch, tmp_path, prepares=True)
    usual = [index for index, case in enumerate(cases) if case.name in USUAL]
    assert len(usual) == len(USUAL)
    llm = make(target, speculative_config=speculative["ngram"], max_num_batched_tokens=70, max_num_seqs=9)
    count = llm.engine.worker.num_graphs
    said = dict(llm.engine.describe())["graphs"]
    assert said.startswith(f"6 of decoding, up to 9 rows, and {count - 6} of steps with prompts, up to 70 tokens: ")
    outputs = request_mix.run(llm, [cases[index] for index in usual])
    assert request_mix.mismatches([cases[i] for i in usual], outputs, [truth[i] for i in usual]) == []
    assert llm.engine.worker.num_graphs == count and share_replayed(llm) == 1.0


USUAL = (
    "greedy, long", "greedy, shared prefix", "temperature 1, shared prefix", "same prompt, other seed",
    "top-k and top-p", "min-p", "one token", "without speculation",
)  # fmt: skip


def found(target, cases, truth, config):
    llm = make(target, speculative_config=config, max_num_batched_tokens=41, max_num_seqs=9)
    try:
        return request_mix.mismatches(cases, request_mix.run(llm, cases), truth)
    except AssertionError as error:
        return [str(error)]


def test_a_layout_of_the_step_before_is_seen(target, cases, truth, speculative, monkeypatch):
    original, kept = PaddedSizes.fill, {}

    def fill(self, plan, *, padding_row):
        now = original(self, plan, padding_row=padding_row)
        return kept.setdefault((self, len(kept) // 7), now) if plan is not None else now

    monkeypatch.setattr(PaddedSizes, "fill", fill)
    assert found(target, cases, truth, speculative["eagle3"]) != []


def test_padding_that_belongs_to_a_request_is_seen(target, cases, truth, speculative, monkeypatch):
    original = PaddedSizes.fill

    def fill(self, plan, *, padding_row):
        numbers = original(self, plan, padding_row=padding_row)
        if plan is not None:
            numbers[self.num_rows] = plan.rows[0].row  # the row that owns the padding tokens
        return numbers

    monkeypatch.setattr(PaddedSizes, "fill", fill)
    assert found(target, cases, truth, speculative["none"]) != []


def test_samples_in_the_wrong_order_are_seen(target, cases, truth, speculative, monkeypatch):
    original = graphs.Replay.run

    def run(self):
        packed = original(self)
        return replace(packed, num_samples=packed.num_samples[::-1])

    monkeypatch.setattr(graphs.Replay, "run", run)
    assert found(target, cases, truth, speculative["replay"]) != []
