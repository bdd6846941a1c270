"""Conformance check of an admission: random records over a request table full of leftovers, against the oracle."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.kernels.interface.step import AdmissionRecord, TableMemory
from tests.kernels.subject import Subject

NUM_WIDE, NUM_NARROW, NUM_LENGTHS = 5, 4, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Sizes of a table and of a record for it."""

    num_table_rows: int = 12
    num_rows: int
    """Rows that start."""
    num_tokens: int
    """Upper bound on the tokens of a row that starts."""
    vocab_size: int = 50
    num_words: int = 48
    """Words of a row's lists."""
    num_columns: int = 32
    """Blocks in the block tables of a row."""


CASES = (
    Case(num_rows=1, num_tokens=9),
    Case(num_rows=0, num_tokens=0),
    Case(num_rows=1, num_tokens=0),
    Case(num_rows=12, num_tokens=30),
    Case(num_rows=4, num_tokens=30, num_columns=2064),  # more new blocks than a program takes at once
    Case(num_rows=2, num_tokens=2500, vocab_size=20011, num_words=1104),  # vocabularies are cut into segments
)


def leftovers(at: Subject, case: Case) -> TableMemory:
    """A table in which every place has a value that no request may meet."""
    count, padded = case.num_table_rows, case.num_table_rows + 4

    def values(*shape: int) -> Tensor:
        return at.integers(*shape, low=1 << 20, high=1 << 30)

    return TableMemory(
        lengths=values(NUM_LENGTHS, padded),
        token_ids=values(count, case.num_tokens + 5).int(),
        block_tables=values(count, case.num_columns).int(),
        wide=values(NUM_WIDE, padded),
        narrow=values(NUM_NARROW, padded).int(),
        lists=values(count, case.num_words).int(),
        neutral_lists=values(case.num_words).int(),
        prompt_mask=at.integers(count, case.vocab_size, high=2).bool(),
        output_counts=values(count, case.vocab_size).int(),
    )


def make_record(at: Subject, case: Case, rng: random.Random) -> AdmissionRecord:
    order = rng.sample(range(case.num_table_rows), case.num_table_rows)
    rows, running = order[: case.num_rows], order[case.num_rows :]
    counts = [rng.randint(case.num_tokens // 2, case.num_tokens) for _ in rows]
    with_lists = [row for row in rows if rng.random() < 0.5]
    places = {row: rng.sample(range(case.num_columns), rng.randint(0, case.num_columns)) for row in order}
    num_blocks = [len(places[row]) for row in rows]
    few = [rng.randrange(case.vocab_size) for _ in range(4)]  # repeats are likely
    ids = [rng.choice((*few, rng.randrange(case.vocab_size))) for _ in range(sum(counts))]
    wide = [[rng.randrange(-(2**63), 2**63) for _ in range(NUM_WIDE + NUM_NARROW // 2)] for _ in rows]
    parts = [
        rows,
        [rng.randint(0, count) for count in counts],
        [with_lists.index(row) if row in with_lists else -1 for row in rows],
        [sum(counts[:index]) for index in range(len(rows) + 1)],
        [sum(num_blocks[:index]) for index in range(len(rows) + 1)],
        [rng.randrange(-(2**63), 2**63) for _ in range(len(rows) * NUM_LENGTHS)],
        [value for some in wide for value in some],
        [row * case.num_columns + column for row in (*rows, *running) for column in places[row]],
        [rng.randrange(1, 99) for row in (*rows, *running) for _ in places[row]],
        ids,
        [rng.randrange(-(2**63), 2**63) for _ in range(len(with_lists) * case.num_words // 2)],
    ]
    data = torch.tensor([value for part in parts for value in part], dtype=torch.int64).to(at.device)
    return AdmissionRecord(data, tuple(map(len, parts)))


def check_admit(at: Subject) -> None:
    rng = random.Random(0)
    for case in CASES:
        memory, record = leftovers(at, case), make_record(at, case, rng)
        ours, expected = (TableMemory(*[part.clone() for part in memory]) for _ in range(2))
        at.kernels.admit(ours, record)
        at.oracle.admit(expected, record)
        assert case.num_tokens == 0 or not torch.equal(expected.token_ids, memory.token_ids)
        for name, mine, right in zip(TableMemory._fields, ours, expected, strict=True):
            at.same(f"admit: {name} of {case}", mine, right)
