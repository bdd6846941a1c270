"""The host's half of assembly: where the rows, tokens and samples of a step lie, and what they ask of the sampler.

What a request's parameters ask for is noted once, by its row of the device table, when it is admitted. In steady
decoding one step lies as the last one did, and its layout is the same object. Knows no tensor.

    rows:     |   chunk of 5   | 1 + k | 1 + k |          row_starts     0  5  …   first token of each row
    samples:                 |1| 1 + k | 1 + k |          sample_starts  0  1  …   first sample of each row
"""

from dataclasses import dataclass

import numpy as np

from outrider.core.plan import Admission, StepPlan
from outrider.core.sampling_params import SamplingParams

WANTS = ("random_index", "penalty_index", "bias_index", "min_tokens_index", "truncation_index")
"""Lists of samples that need a part of the sampler: host facts that choose work, never a result."""

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One step."""

    arrays: dict[str, np.ndarray]
    """By name, int64: what is staged. Each name of `WANTS` lists samples; empty where none needs it."""
    num_logprobs: int | None
    """Most log-probabilities that a row asks for; None where no row asks."""


class Layouts:
    """Lays steps out; knows the requests of up to `max_rows` table rows."""

    def __init__(self, max_rows: int) -> None:
        self._wants = np.zeros((len(WANTS), max_rows), dtype=bool)
        self._num_logprobs = np.full(max_rows, -1)  # -1: none wanted
        self._columns: list[tuple[int, int, int, bool]] = []
        self._last: Layout | None = None

    def admit(self, admissions: tuple[Admission, ...]) -> None:
        """Note what requests that start or resume ask for."""
        if admissions:
            self._last = None
        for entry in admissions:
            self._wants[:, entry.row] = _wants(entry.params)
            wanted = entry.params.logprobs
            self._num_logprobs[entry.row] = -1 if wanted is None else wanted

    def lay_out(self, plan: StepPlan) -> Layout:
        """The layout of a step whose requests were all admitted; the last one again where nothing has changed."""
        columns = [(row.row, row.num_tokens, row.num_drafts, row.does_sample) for row in plan.rows]
        if self._last is None or columns != self._columns:
            self._columns, self._last = columns, self._make(columns)
        return self._last

    def _make(self, columns: list[tuple[int, int, int, bool]]) -> Layout:
        rows, counts, drafts, does_sample = np.array(columns, dtype=np.int64).T
        num_known = counts - drafts
        token_row, token_offset, row_starts = _spread(counts)
        sample_row, sample_offset, sample_starts = _spread((1 + drafts) * does_sample)
        wants = self._wants[:, rows]
        is_wanted = np.logical_or.reduce(wants, axis=1)
        num_logprobs = int(self._num_logprobs[rows].max())
        return Layout(
            arrays={
                "rows": rows,
                "num_known": num_known,
                "draft_bound": drafts,
                "does_sample": does_sample,
                "row_starts": row_starts,
                "sample_starts": sample_starts,
                "token_row": token_row,
                "token_offset": token_offset,
                "sample_row": sample_row,
                "sample_offset": sample_offset,
                "sample_index": (row_starts + num_known - 1)[sample_row] + sample_offset,
                **{
                    name: np.flatnonzero(wants[index, sample_row]) if is_wanted[index] else _NONE
                    for index, name in enumerate(WANTS)
                },
            },
            num_logprobs=num_logprobs if num_logprobs >= 0 else None,
        )


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `counts` things of each row, end to end: the row of each thing, its place in the row, each row's first."""
    starts = counts.cumsum() - counts
    row = np.arange(counts.size).repeat(counts)
    return row, np.arange(row.size) - starts[row], starts


def _wants(params: SamplingParams) -> tuple[bool, ...]:
    """In the order of `WANTS`."""
    return (
        not params.is_greedy,
        params.has_penalties,
        bool(params.logit_bias),
        params.min_tokens > 0,
        params.has_truncation,
    )
