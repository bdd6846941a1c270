"""Places of rows, tokens and samples in a step, against loops over random plans; and layouts that are kept."""

import random

import pytest
import torch

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import RowAdmission, RowPlan, StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.assemble import Assembler, Layout
from outrider.device.padded_layout import PaddedSizes
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.kernels import load_kernels
from outrider.platforms.base import select_platform

NUM_ROWS = 12
PARAMS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.7, top_p=0.9, logprobs=3),
    SamplingParams(temperature=1.0, presence_penalty=0.5, logprobs=0),
    SamplingParams(temperature=0.0, min_p=0.5, logit_bias={3: 1.0}, min_tokens=2),
    SamplingParams(temperature=1.2, top_k=5, repetition_penalty=1.1),
    SamplingParams(temperature=0.0, allowed_token_ids=[1, 4], logprob_token_ids=[2, 3]),
)
LISTS = {
    "random": lambda params: params.temperature > 0,
    "penalty": lambda params: params.presence_penalty != 0 or params.repetition_penalty != 1,
    "bias": lambda params: params.logit_bias is not None,
    "min_tokens": lambda params: params.min_tokens > 0,
    "bad_words": lambda params: bool(params.bad_words),
    "allowed": lambda params: params.allowed_token_ids is not None,
    "truncation": lambda params: params.temperature > 0 and (params.top_k > 0 or params.top_p < 1),
}


class Layouts:
    """An assembler and a table on the CPU."""

    def __init__(self) -> None:
        device, kernels = torch.device("cpu"), load_kernels(("reference",))
        staging = Staging(select_platform("cpu"))
        self.assembler = Assembler(kernels=kernels, staging=staging, num_drafts=3, wants_digest=False)
        self.table = RequestTable(
            max_rows=NUM_ROWS, max_model_len=64, num_drafts=3, groups=(BlockGroup(block_size=16),), vocab_size=9,
            kernels=kernels, staging=staging, device=device,
        )  # fmt: skip

    def admit(self, chosen: dict[int, SamplingParams]) -> None:
        self.table.admit(
            tuple(
                RowAdmission(
                    row=row, request_id=str(row), token_ids=(1, 2), num_prompt_tokens=2, num_computed_tokens=0,
                    last_cached_block=-1, max_total_tokens=9, params=params, seed=0, stop_token_ids=(),
                )
                for row, params in chosen.items()
            )
        )  # fmt: skip

    def lay_out(self, rows: list[RowPlan], num_proposals: int = 3) -> Layout:
        plan = StepPlan(step_id=1, admissions=(), new_blocks=(), rows=tuple(rows), num_proposals=num_proposals)
        return self.assembler.lay_out(plan, self.table)


def row_plan(
    row: int,
    params: SamplingParams,
    *,
    num_known: int = 1,
    num_drafts: int = 0,
    does_sample: bool = True,
    bound: int = 9,
) -> RowPlan:
    return RowPlan(
        request_id=str(row), epoch=1, row=row, num_tokens=num_known + num_drafts, num_drafts=num_drafts,
        does_sample=does_sample, length_bound=bound, params=params,
    )  # fmt: skip


def slow_layout(rows: list[RowPlan]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Token by token and sample by sample: numbers and lists."""
    numbers: dict[str, list[int]] = {
        "rows": [row.row for row in rows],
        "num_known": [row.num_tokens - row.num_drafts for row in rows],
        "draft_bound": [row.num_drafts for row in rows],
        "does_sample": [int(row.does_sample) for row in rows],
    }
    names = ("row_starts", "sample_starts", "token_row", "token_offset", "sample_row", "sample_offset", "sample_index")
    numbers |= {name: [] for name in names}
    lists: dict[str, list[int]] = {name: [] for name in LISTS}
    for index, row in enumerate(rows):
        numbers["row_starts"].append(len(numbers["token_row"]))
        numbers["sample_starts"].append(len(numbers["sample_row"]))
        for offset in range(row.num_samples):
            sample = len(numbers["sample_row"])
            numbers["sample_index"].append(numbers["row_starts"][-1] + row.num_tokens - row.num_drafts - 1 + offset)
            numbers["sample_row"].append(index)
            numbers["sample_offset"].append(offset)
            for name, needs in LISTS.items():
                if needs(row.params):
                    lists[name].append(sample)
        for offset in range(row.num_tokens):
            numbers["token_row"].append(index)
            numbers["token_offset"].append(offset)
    return numbers, lists


def check(layout: Layout, rows: list[RowPlan]) -> None:
    numbers, lists = slow_layout(rows)
    assert {name: tensor.tolist() for name, tensor in layout.numbers.items()} == numbers
    assert {name: [] if index is None else index.tolist() for name, index in layout.lists.items()} == lists
    assert layout.row_counts == tuple(row.num_tokens for row in rows)
    assert layout.samples_of_rows == tuple(row.num_samples for row in rows)
    assert layout.length_bound == max(row.length_bound for row in rows)
    wanted = [row.params.num_logprobs for row in rows if row.params.num_logprobs is not None]
    assert layout.num_logprobs == (max(wanted) if wanted else None)
    assert layout.num_given == max(len(row.params.logprob_token_ids or ()) for row in rows)


def random_plan(rng: random.Random, chosen: dict[int, SamplingParams]) -> list[RowPlan]:
    """Chunks of prompts and decode rows, in any order."""
    rows = []
    for row, params in chosen.items():
        if rng.random() < 0.3:
            rows.append(row_plan(row, params, num_known=rng.randrange(1, 9), does_sample=rng.random() < 0.5))
        else:
            rows.append(row_plan(row, params, num_drafts=rng.randrange(4), bound=rng.randrange(60)))
    return rows


def test_a_padded_layout_begins_with_the_same_numbers() -> None:
    rng = random.Random(1)
    for _ in range(60):
        rows = random_plan(rng, dict.fromkeys(rng.sample(range(NUM_ROWS), rng.randrange(1, 9)), PARAMS[0]))
        plan = StepPlan(step_id=1, admissions=(), new_blocks=(), rows=tuple(rows), num_proposals=3)
        samples, tokens = sum(row.num_samples for row in rows), plan.num_tokens
        more_rows, more_tokens, more_samples = rng.choice([0, 3]), rng.choice([0, 11]), rng.choice([0, 5])
        num_samples = max(samples + more_samples, 1)
        sizes = PaddedSizes(num_rows=len(rows) + more_rows, num_tokens=tokens + more_tokens, num_samples=num_samples)
        assert sizes.fits(plan)
        parts = sizes.split(torch.from_numpy(sizes.fill(plan, padding_row=NUM_ROWS)))
        expected, _ = slow_layout(rows)
        for name, values in expected.items():
            if name == "sample_starts":  # only rows with samples read theirs
                pairs = zip(rows, values, parts[name].tolist(), strict=False)
                assert all(there == here for row, there, here in pairs if row.does_sample)
            else:
                assert parts[name][: len(values)].tolist() == values, name
        assert parts["row_counts"].tolist() == [row.num_tokens for row in rows] + [0] * more_rows + [more_tokens]
        assert set(parts["rows"][len(rows) :].tolist()) == {NUM_ROWS}
        assert set(parts["token_row"][tokens:].tolist()) <= {sizes.num_rows}, "the last row owns the padding tokens"
        assert parts["does_sample"][len(rows) :].sum() == 0
        assert set(parts["sample_row"][samples:].tolist()) <= {sizes.num_rows}
        assert parts["sample_starts"].min() >= 0 and parts["sample_starts"].max() < num_samples


def test_a_plan_that_does_not_fit_is_known() -> None:
    rows = [row_plan(0, PARAMS[0], num_drafts=2), row_plan(1, PARAMS[0], num_known=7, does_sample=False)]
    plan = StepPlan(step_id=1, admissions=(), new_blocks=(), rows=tuple(rows), num_proposals=3)
    fits = {"num_rows": 2, "num_tokens": 10, "num_samples": 3}
    assert PaddedSizes(**fits).fits(plan)
    for name, value in fits.items():
        assert not PaddedSizes(**fits | {name: value - 1}).fits(plan), name


@pytest.mark.parametrize("seed", range(5))
def test_a_layout_equals_that_of_loops(seed: int) -> None:
    rng = random.Random(seed)
    layouts = Layouts()
    for _ in range(40):
        chosen = {row: rng.choice(PARAMS) for row in rng.sample(range(NUM_ROWS), rng.randrange(1, 9))}
        layouts.admit(chosen)
        rows = random_plan(rng, chosen)
        for _ in range(rng.randrange(1, 3)):
            check(layouts.lay_out(rows), rows)


def test_an_unchanged_step_is_not_staged_again() -> None:
    layouts = Layouts()
    layouts.admit({0: PARAMS[0], 3: PARAMS[0]})
    rows = [row_plan(row, PARAMS[0], num_drafts=2) for row in (3, 0)]
    later = [row_plan(row, PARAMS[0], num_drafts=2, bound=20) for row in (3, 0)]
    first = layouts.lay_out(rows)
    again = layouts.lay_out(later)
    check(again, later)
    assert again.numbers is first.numbers
    for changed in (rows[::-1], rows[:1], [rows[0], row_plan(0, PARAMS[0], num_drafts=1)]):
        check(layouts.lay_out(changed), changed)
        check(layouts.lay_out(rows), rows)


def test_a_row_with_a_new_owner_is_laid_out_again() -> None:
    layouts = Layouts()
    for params in (PARAMS[0], PARAMS[1], PARAMS[4], PARAMS[2]):
        layouts.admit({1: params})
        rows = [row_plan(1, params)]
        check(layouts.lay_out(rows), rows)
