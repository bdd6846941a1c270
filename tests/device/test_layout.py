"""Where rows, tokens and samples of a step lie: against loops, over random plans; and what is remembered."""

import random

import numpy as np
import pytest

from outrider.core.plan import Admission, RowPlan, StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.device.layout import WANTS, Layouts

PARAMS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.7, top_p=0.9, logprobs=3),
    SamplingParams(temperature=1.0, presence_penalty=0.5, logprobs=0),
    SamplingParams(temperature=0.0, min_p=0.5, logit_bias={3: 1.0}, min_tokens=2),
    SamplingParams(temperature=1.2, top_k=5, repetition_penalty=1.1),
)
NEEDS = {
    "random_index": lambda params: params.temperature > 0,
    "penalty_index": lambda params: params.presence_penalty != 0 or params.repetition_penalty != 1,
    "bias_index": lambda params: params.logit_bias is not None,
    "min_tokens_index": lambda params: params.min_tokens > 0,
    "truncation_index": lambda params: params.temperature > 0 and (params.top_k > 0 or params.top_p < 1),
}


def admission(row: int, params: SamplingParams) -> Admission:
    return Admission(
        row=row, request_id=str(row), token_ids=(1, 2), num_prompt_tokens=2, num_computed_tokens=0,
        last_cached_block=-1, max_total_tokens=9, params=params, seed=0, stop_token_ids=(),
    )  # fmt: skip


def row_plan(row: int, params: SamplingParams, *, num_known: int, num_drafts: int, does_sample: bool) -> RowPlan:
    return RowPlan(
        request_id=str(row), epoch=1, row=row, num_tokens=num_known + num_drafts, num_drafts=num_drafts,
        does_sample=does_sample, length_bound=99, params=params,
    )  # fmt: skip


def plan_of(rows: list[RowPlan], admissions: tuple[Admission, ...] = ()) -> StepPlan:
    return StepPlan(step_id=1, admissions=admissions, new_blocks=(), rows=tuple(rows))


def slow_layout(rows: list[RowPlan]) -> dict[str, list[int]]:
    """Token by token and sample by sample."""
    found: dict[str, list[int]] = {
        "rows": [row.row for row in rows],
        "num_known": [row.num_tokens - row.num_drafts for row in rows],
        "draft_bound": [row.num_drafts for row in rows],
        "does_sample": [int(row.does_sample) for row in rows],
    }
    names = ("row_starts", "sample_starts", "token_row", "token_offset", "sample_row", "sample_offset", "sample_index")
    found |= {name: [] for name in (*names, *WANTS)}
    for index, row in enumerate(rows):
        found["row_starts"].append(len(found["token_row"]))
        found["sample_starts"].append(len(found["sample_row"]))
        for offset in range(row.num_samples):
            sample = len(found["sample_row"])
            found["sample_index"].append(found["row_starts"][-1] + row.num_tokens - row.num_drafts - 1 + offset)
            found["sample_row"].append(index)
            found["sample_offset"].append(offset)
            for name in WANTS:
                if NEEDS[name](row.params):
                    found[name].append(sample)
        for offset in range(row.num_tokens):
            found["token_row"].append(index)
            found["token_offset"].append(offset)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_layout_equals_that_of_loops(seed: int) -> None:
    rng = random.Random(seed)
    layouts = Layouts(12)
    for _ in range(40):
        table_rows = rng.sample(range(12), rng.randrange(1, 9))
        chosen = {row: rng.choice(PARAMS) for row in table_rows}
        layouts.admit(tuple(admission(row, params) for row, params in chosen.items()))
        rows = []
        for row, params in chosen.items():
            kind = rng.randrange(3)
            if kind == 0:
                num_known = rng.randrange(1, 9)
                rows.append(row_plan(row, params, num_known=num_known, num_drafts=0, does_sample=rng.random() < 0.5))
            else:
                rows.append(row_plan(row, params, num_known=1, num_drafts=rng.randrange(4), does_sample=True))
        layout = layouts.lay_out(plan_of(rows))
        expected = slow_layout(rows)
        assert layout.arrays.keys() == expected.keys()
        for name, want in expected.items():
            assert layout.arrays[name].dtype == np.int64, name
            assert layout.arrays[name].tolist() == want, name
        wanted = [params.logprobs for params in chosen.values() if params.logprobs is not None]
        assert layout.num_logprobs == (max(wanted) if wanted else None)


def test_an_unchanged_step_has_the_layout_of_the_last_one() -> None:
    layouts = Layouts(4)
    layouts.admit((admission(0, PARAMS[0]), admission(3, PARAMS[0])))
    rows = [row_plan(row, PARAMS[0], num_known=1, num_drafts=2, does_sample=True) for row in (3, 0)]
    first = layouts.lay_out(plan_of(rows))
    assert layouts.lay_out(plan_of(rows)) is first
    for changed in (
        rows[::-1],
        rows[:1],
        [rows[0], row_plan(0, PARAMS[0], num_known=1, num_drafts=1, does_sample=True)],
    ):
        assert layouts.lay_out(plan_of(changed)).arrays["rows"].tolist() == [row.row for row in changed]
        assert layouts.lay_out(plan_of(rows)).arrays["rows"].tolist() == [3, 0]


def test_a_row_with_a_new_owner_is_laid_out_again() -> None:
    layouts = Layouts(2)
    layouts.admit((admission(1, PARAMS[0]),))
    row = row_plan(1, PARAMS[0], num_known=1, num_drafts=0, does_sample=True)
    assert layouts.lay_out(plan_of([row])).arrays["random_index"].tolist() == []
    layouts.admit((admission(1, PARAMS[1]),))
    layout = layouts.lay_out(plan_of([row]))
    assert layout.arrays["random_index"].tolist() == [0] and layout.num_logprobs == 3
