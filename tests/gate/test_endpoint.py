"""Gating a server over HTTP: pages of each kind, counts by difference, and every sign of other traffic."""

from pathlib import Path

import pytest

from outrider.gate import endpoint
from outrider.gate.endpoint import Server, measure_endpoint
from outrider.gate.errors import GateError
from outrider.gate.metrics_page import parse_page, read_page
from outrider.gate.prompts import Prompt
from tests.support.fake_server import MODEL, Counters, FakeServer, page, serving

PAGES = Path(__file__).parent / "pages"
PROMPTS = [
    Prompt(prompt_id="a", category="c", turns=("Hi", "More"), is_chat=True),
    Prompt(prompt_id="b", category="c", turns=("def f(",), is_chat=False),
    Prompt(prompt_id="c", category="d", turns=("Bye",), is_chat=True),
]


def run(fake: FakeServer, **options):
    with serving(fake) as url:
        return measure_endpoint(
            Server(url, MODEL), PROMPTS, **{"max_tokens": 20, "temperature": 0.0, "seed": 5} | options
        )


@pytest.mark.parametrize("kind", ["vllm", "outrider"])
def test_pages_of_vllm_and_outrider(kind):
    reading = read_page((PAGES / f"{kind}.txt").read_text(), model=MODEL)
    assert reading.kind == kind and reading.is_idle
    assert (reading.generation_tokens, reading.finished, reading.drafts) == (2048, 8, 800)
    assert (reading.draft_tokens, reading.accepted, reading.accepted_per_pos) == (2400, 1200, (600, 400, 200))


def test_page_of_sglang_counts_rank_zero_only():
    reading = read_page((PAGES / "sglang.txt").read_text(), model=MODEL)
    assert (reading.generation_tokens, reading.finished, reading.drafts) == (2048, 8, 800)
    assert reading.accepted is None and reading.accepted_per_pos == ()


def test_labels_and_values_in_every_legal_form():
    text = '# HELP a b\na{x="q\\"uo\\\\te\\n",y=""} 1e3 1700000000\nb NaN\nc +Inf\n\nd{} 2\n'
    series = {entry.name: entry for entry in parse_page(text)}
    assert series["a"].labels == {"x": 'q"uo\\te\n', "y": ""} and series["a"].value == 1000.0
    assert series["c"].value == float("inf") and series["d"].value == 2.0 and series["b"].value != series["b"].value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html>", "not a sample"),
        ("up 1\n", "no known server"),
        ("vllm:a 1\nsglang:b 1\n", "vllm', 'sglang"),
        (page("vllm", Counters()).replace("spec_decode_num_drafts_total", "x"), "does not speculate"),
        (page("vllm", Counters()).replace('position="1"', 'position="7"'), "some are missing"),
        (page("sglang", Counters()).replace("spec_verify_calls_total", "spec_accept_length"), "too old to say"),
    ],
)
def test_pages_that_do_not_tell_enough_are_refused(text, words):
    with pytest.raises(GateError, match=words):
        read_page(text, model=MODEL)


@pytest.mark.parametrize("kind", ["vllm", "outrider"])
def test_counts_are_differences_prompt_by_prompt(kind):
    fake = FakeServer(kind)
    fake.counters.serve({"max_tokens": 99}, luck=50)  # what was served before does not count
    found = run(fake)
    assert [sample.prompt for sample in found.samples] == ["a", "b", "c"]
    for sample, (path, body) in zip(found.samples, fake.seen, strict=True):
        alone = Counters()
        alone.serve(body, luck=70)
        assert (sample.num_tokens, sample.num_drafts) == (20, alone.drafts)
        assert sample.num_accepted_tokens_per_pos == tuple(alone.per_pos)
        assert sample.num_accepted_tokens == sum(alone.per_pos) and sample.num_draft_tokens == 3 * alone.drafts
        assert path.endswith("chat/completions") == ("messages" in body)
    assert [body["seed"] for _, body in fake.seen] == [5, 6, 7]
    assert found.key == {"endpoint": kind, "model": MODEL, "version": "0.26.0"}
    assert found.num_drafts == 3 and not found.is_engine


def test_sglang_gives_the_total_only():
    fake = FakeServer("sglang")
    found = run(fake, num_drafts=3)
    for sample, (_, body) in zip(found.samples, fake.seen, strict=True):
        alone = Counters()
        alone.serve(body, luck=70)
        assert (sample.num_drafts, sample.num_accepted_tokens) == (alone.drafts, sum(alone.per_pos))
        assert sample.num_accepted_tokens_per_pos == ()
    assert found.key["version"] == "unknown"
    with pytest.raises(GateError, match="do not include the number of drafts"):
        run(FakeServer("sglang"))


def test_all_turns_follow_the_servers_own_answers():
    fake = FakeServer("vllm")
    found = run(fake, all_turns=True)
    assert [(sample.prompt, sample.turn) for sample in found.samples] == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    messages = fake.seen[1][1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"].startswith("answer ") and messages[2]["content"] == "More"


def test_counters_that_lag_are_waited_for():
    assert run(FakeServer("vllm", fault="lag")).samples == run(FakeServer("vllm")).samples


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("busy", "is busy: 2 requests running"),
        ("traffic", "during prompt b 2 requests ended .* other traffic interferes"),
        ("restart", "a counter fell during prompt b"),
        ("stuck", "do not settle"),
        ("no usage", "not an OpenAI completion with usage"),
        ("no counters", "does not speculate"),
    ],
)
def test_what_cannot_be_trusted_is_refused(monkeypatch, fault, words):
    monkeypatch.setattr(endpoint, "SETTLE_SECONDS", 0.3)
    with pytest.raises(GateError, match=words):
        run(FakeServer("vllm", fault=fault))


def test_a_server_that_is_not_there_or_knows_no_such_model():
    with pytest.raises(GateError, match="cannot be reached"):
        Server("http://127.0.0.1:9", MODEL).reading()
    with pytest.raises(GateError, match="is not an address"):
        Server("localhost:8000", MODEL)
    with serving(FakeServer("vllm")) as url, pytest.raises(GateError, match="status 404"):
        Server(url, "another").complete(PROMPTS[0], [], max_tokens=1)
