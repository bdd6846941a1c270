"""The time of a step with drafts compared with one without: measured before the first request, and leaving no trace."""

from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider.core.draft_cost import DraftCost
from outrider.engine.engine import Engine

from .text_model import write_text_model

NGRAM = {"method": "ngram", "num_speculative_tokens": 3}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("model"))


def engine(directory: Path, **options: object) -> Engine:
    return LLM(str(directory), **({"speculative_config": NGRAM} | options)).engine


def run(used: Engine) -> object:
    """Everything that requests show: tokens, drawn seeds, counts."""
    ids = ["a b a b a b", "def f(x):"]
    for prompt in ids:
        used.add(used.new_request(prompt, SamplingParams(max_tokens=12, temperature=0.9)))
    outputs = {}
    while used.has_work:
        outputs |= {output.request_id: output for output in used.step()}
    return [(o.seed, o.outputs[0].token_ids, o.speculation.counts) for _, o in sorted(outputs.items())], used.stats()


def test_it_is_measured_for_each_load_and_described(directory: Path) -> None:
    measured = engine(directory)
    cost = measured.draft_cost()
    assert cost is not None and cost.num_drafts == 3
    assert list(cost.ratios) in ([1], [1, 8]) and all(0.05 < ratio < 50 for ratio in cost.ratios.values())
    assert ("  measured", str(cost)) in measured.describe()
    assert measured.draft_cost() is cost, "measured once"


def test_requests_show_nothing_of_it(directory: Path) -> None:
    plain, measured = engine(directory, seed=5), engine(directory, seed=5)
    assert measured.draft_cost() is not None and measured.stats() == plain.stats()
    assert run(measured) == run(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"speculative_config": None},
        {"speculative_config": NGRAM | {"adaptive": True}},
        {"max_model_len": 32},
    ],
    ids=lambda options: next(iter(options)) + str(len(str(options))),
)
def test_what_is_not_known_is_not_said(directory: Path, options: dict[str, object]) -> None:
    used = engine(directory, **options)
    assert used.draft_cost() is None
    assert "  measured" not in dict(used.describe())


def test_an_engine_that_has_served_is_not_measured(directory: Path) -> None:
    """Its prefix cache holds blocks that the measurement would overwrite."""
    used = engine(directory)
    run(used)
    assert used.draft_cost() is None


def test_the_sentence_has_the_figures() -> None:
    assert str(DraftCost(num_drafts=3, ratios={1: 1.4})) == (
        "with 1 request a step with 3 drafts takes 1.40 times as long as one without; drafts save time where the "
        "acceptance length is higher"
    )
    assert str(DraftCost(num_drafts=1, ratios={1: 2.25, 8: 3.0})) == (
        "drafts cost more time than they save: with 1 request a step with 1 draft takes 2.25 times as long as one "
        "without, with 8 requests 3.00 times, and it gives at most 2 tokens a request"
    )
