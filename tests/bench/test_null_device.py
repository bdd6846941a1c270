"""The null device keeps the contract of a step: rows, room and drafts; and accepts as many drafts as asked for."""

from pathlib import Path

import pytest

from outrider.bench.host import ACCEPTANCE_RATES, measure_host
from outrider.bench.null_device import NullDevice
from outrider.core.kv_groups import BlockGroup
from outrider.core.outputs import SpeculationStats
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.text import OutputTexts
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState
from outrider.scheduler.scheduler import Scheduler


def run(num_drafts: int, *, budget: int = 64) -> list[RequestState]:
    """Requests of several lengths to their end, one step in flight."""
    rates = ACCEPTANCE_RATES[:num_drafts]
    texts = OutputTexts(None)
    scheduler = Scheduler(
        groups=(BlockGroup(block_size=16),), num_blocks=(40,), max_num_seqs=4, max_num_batched_tokens=budget,
        num_drafts=num_drafts, num_lookahead=0, enable_prefix_caching=True, stop_rule=texts,
    )  # fmt: skip
    device = NullDevice(list(range(5, 500)), max_rows=4, acceptance_rates=rates)
    requests = [
        Request(
            request_id=str(index), prompt_token_ids=(index,) * (20 + 9 * index), params=SamplingParams(max_tokens=None),
            seed=0, eos_token_ids=(), max_total_tokens=90 + index,
        )
        for index in range(7)
    ]  # fmt: skip
    states = [scheduler.add(request) for request in requests]
    for request in requests:
        texts.begin(request)
    answers = []
    while scheduler.has_work or answers:
        plan = scheduler.plan()
        if plan is not None:
            answers.append(device.step(plan))
        if len(answers) > 1 or plan is None:
            answer = answers.pop(0)
            scheduler.settle(answer.plan, answer.wait())
    return states


@pytest.mark.parametrize("num_drafts", [0, 1, 3])
def test_every_request_reaches_its_end(num_drafts: int) -> None:
    for request in run(num_drafts):
        assert request.num_tokens == request.max_total_tokens
        assert len(request.is_draft) == request.num_output_tokens


def test_drafts_are_accepted_at_the_rates_asked_for() -> None:
    total = SpeculationStats()
    for request in run(3, budget=500):
        total.add(request.speculation)
    rates = total.acceptance_rate_per_pos
    assert all(abs(rate - want) < 0.1 for rate, want in zip(rates, ACCEPTANCE_RATES, strict=True)), rates


def test_the_host_is_measured_in_parts() -> None:
    tokenizer = Tokenizer(Path(__file__).parents[2] / "zoo" / "tiny")
    figures = measure_host(tokenizer, num_rows=3, num_drafts=2, num_windows=2)
    assert min(figures.plan, figures.stage, figures.read, figures.settle) > 0
    assert figures.median >= figures.total > figures.settle > 0
    assert figures.to_dict()["total"] == figures.total
