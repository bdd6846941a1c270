"""The request table: an admission leaves nothing of a row's former owner, and blocks are appended where they belong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import NewBlocks, RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.device.table import RequestTable
from outrider.kernels.interface.step import AdmissionRecord
from tests.support.request_tables import make_request_table

ROW = 2
BARE = SamplingParams(temperature=0.0)
FULL = SamplingParams(
    temperature=0.7, top_k=5, top_p=0.8, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.3,
    frequency_penalty=0.2, logit_bias={3: 1.5}, min_tokens=2, logprobs=2, logprob_token_ids=[4, 5],
    allowed_token_ids=[1, 2, 3],
)  # fmt: skip


def make_table() -> RequestTable:
    return make_request_table(4, 9, num_drafts=3, groups=(BlockGroup(block_size=16), BlockGroup(block_size=16)))


def columns(table: RequestTable) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the table, by a name."""
    for name, value in (*vars(table).items(), *vars(table.sampling).items(), *table.sampling.columns.items()):
        if isinstance(value, Tensor):
            yield name, value
    yield from ((f"block_tables[{index}]", value) for index, value in enumerate(table.block_tables))


def fill_with_leftovers(table: RequestTable) -> None:
    """Every cell holds something that no new request may meet."""
    for _, value in columns(table):
        value.fill_(True if value.dtype is torch.bool else 7)


def admission(params: SamplingParams) -> RowAdmission:
    return RowAdmission(
        row=ROW, request_id="a", token_ids=(3, 1, 4, 1, 5), num_prompt_tokens=3, num_computed_tokens=0,
        last_cached_block=-1, max_total_tokens=40, params=params, seed=12, stop_token_ids=(8,), completion_index=1,
        bad_words=((1, 2),) if params is FULL else (),
    )  # fmt: skip


COUNTED_BY = {"drafts": "num_drafts", "token_ids": "num_tokens"}
"""Lists of which only the first places are read, and the column that counts them."""


@pytest.mark.parametrize("params", [BARE, FULL], ids=["bare", "full"])
def test_a_new_owner_meets_nothing_of_the_last_one(params: SamplingParams) -> None:
    used, fresh = make_table(), make_table()
    fill_with_leftovers(used)
    for table in (used, fresh):
        table.admit((admission(params),))
    counts = dict(columns(fresh))
    for (name, ours), (_, expected) in zip(columns(used), columns(fresh), strict=True):
        count = int(counts[COUNTED_BY[name]][ROW]) if name in COUNTED_BY else None
        rows = [tensor[ROW] if tensor.ndim == 1 else tensor[ROW][:count] for tensor in (ours, expected)]
        assert torch.equal(*rows), name
    assert used.token_ids[ROW, :5].tolist() == [3, 1, 4, 1, 5]
    assert int(used.num_drafts[ROW]) == 0 and int(used.num_tokens[ROW]) == 5


def test_an_admission_changes_no_other_row() -> None:
    table = make_table()
    fill_with_leftovers(table)
    before = {name: value.clone() for name, value in columns(table)}
    table.admit((admission(FULL),))
    others = [row for row in range(5) if row != ROW]
    for name, value in columns(table):
        assert torch.equal(value[others], before[name][others]), name


def test_blocks_are_appended_to_the_row_and_the_group_they_are_for() -> None:
    table = make_table()
    for block_tables in table.block_tables:
        block_tables[1:3] = 7
    new_blocks = (
        NewBlocks(row=ROW, first_index=0, block_ids=(5, 9), group=1),
        NewBlocks(row=1, first_index=2, block_ids=(4,), group=0),
        NewBlocks(row=ROW, first_index=2, block_ids=(6,), group=1),
    )
    table.admit((admission(BARE),), new_blocks)
    assert table.block_tables[0].tolist() == [[0] * 4, [7, 7, 4, 7], [0] * 4, [0] * 4, [0] * 4]
    assert table.block_tables[1].tolist() == [[0] * 4, [7] * 4, [5, 9, 6, 0], [0] * 4, [0] * 4]
    table.admit((), (NewBlocks(row=1, first_index=3, block_ids=(8,), group=1),))
    assert table.block_tables[1].tolist() == [[0] * 4, [7, 7, 7, 8], [5, 9, 6, 0], [0] * 4, [0] * 4]


def test_a_record_has_the_new_blocks_of_a_row_that_starts_with_that_row() -> None:
    """The kernel clears a row and adds its blocks in one program; those of other rows are added beside it."""
    table = make_table()
    blocks = [
        NewBlocks(row=row, first_index=row, block_ids=tuple(range(10 * row, 10 * row + row + 1))) for row in range(4)
    ]
    admissions = [replace(admission(BARE), row=3), replace(admission(BARE), row=1)]
    arrays, sizes = table._packer.pack(admissions, blocks)
    record = AdmissionRecord(torch.from_numpy(np.concatenate(arrays)), sizes).parts
    assert record.rows.tolist() == [3, 1]
    assert record.block_starts.tolist() == [0, 4, 6]
    assert record.block_ids.tolist() == [30, 31, 32, 33, 10, 11, 0, 20, 21, 22]


class CountedCalls:
    """Kernels and staging of a table; notes each call."""

    def __init__(self, table: RequestTable, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for part, name in ((table._kernels, "admit"), (table._staging, "put_record"), (table._staging, "put")):
            monkeypatch.setattr(part, name, self._noted(name, getattr(part, name)))

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return function(*arguments)

        return call


def test_admissions_of_a_step_take_one_copy_and_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    together, one_by_one = make_table(), make_table()
    admissions = [replace(admission(FULL if row % 2 else BARE), row=row, seed=row) for row in range(4)]
    blocks = [NewBlocks(row=row, first_index=0, block_ids=(row + 1, 9), group=1) for row in range(4)]
    counted = CountedCalls(together, monkeypatch)
    together.admit(admissions, blocks)
    assert counted.calls == ["put_record", "admit"]
    for entry, own in zip(admissions, blocks, strict=True):
        one_by_one.admit((entry,), (own,))
    for (name, ours), (_, expected) in zip(columns(together), columns(one_by_one), strict=True):
        assert torch.equal(ours, expected), name
    counted.calls.clear()
    together.admit((), ())
    assert counted.calls == []
