"""Packs everything that a step's admissions write to the request table into one piece, on the host.

`AdmissionParts` (`kernels/interface/step.py`) says what its parts are. Knows the order of the table's lengths and the
places of its blocks, but no tensor.
"""

import struct
from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np

from outrider.core.plan import NewBlocks, RowAdmission
from outrider.sampling.params import SamplingTable

LENGTHS = ("num_tokens", "num_computed", "max_total", "state_lengths", "state_known", "num_drafts")
"""Lengths of a row, in the order of the record."""


class RecordPacker:
    """Packs records for one request table."""

    def __init__(self, sampling: SamplingTable, *, first_columns: Sequence[int], num_columns: int) -> None:
        """first_columns: where the block table of each group begins in a row of `num_columns` blocks."""
        self._sampling = sampling
        self._first_columns = first_columns
        self._num_columns = num_columns

    def pack(
        self, admissions: Sequence[RowAdmission], new_blocks: Sequence[NewBlocks]
    ) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """Arrays of int64 that make up the record one after the other, and the sizes of its parts."""
        block_starts, *blocks = self._blocks(admissions, new_blocks)
        packed = [self._sampling.begin(entry) for entry in admissions]
        lists = [own for _, own in packed if own is not None]
        order = accumulate([own is not None for _, own in packed], initial=0)
        numbers = (
            [entry.row for entry in admissions],
            [entry.num_prompt_tokens for entry in admissions],
            [index if own is not None else -1 for index, (_, own) in zip(order, packed, strict=False)],
            [*accumulate([len(entry.token_ids) for entry in admissions], initial=0)],
            block_starts,
            [length for entry in admissions for length in _lengths(entry)],
        )
        parameters = np.frombuffer(b"".join([own for own, _ in packed]), dtype=np.int64)
        token_ids = [_integers(entry.token_ids) for entry in admissions]
        arrays = [_integers([*chain(*numbers)]), parameters, *map(_integers, blocks), *token_ids]
        arrays += [own.view(np.int64) for own in lists]
        num_tokens, num_words = sum(map(len, token_ids)), sum(map(len, lists))
        return arrays, (*map(len, numbers), len(parameters), *map(len, blocks), num_tokens, num_words // 2)

    def _blocks(
        self, admissions: Sequence[RowAdmission], new_blocks: Sequence[NewBlocks]
    ) -> tuple[list[int], list[int], list[int]]:
        """First new block of each admission and of the rows that run; places and ids of the blocks in this order."""
        index_of = {entry.row: index for index, entry in enumerate(admissions)}
        assert len(index_of) == len(admissions), "two requests start in one row"
        places: list[list[int]] = [[] for _ in range(len(admissions) + 1)]  # the last: of rows that run
        block_ids: list[list[int]] = [[] for _ in range(len(admissions) + 1)]
        for blocks in new_blocks:
            index = index_of.get(blocks.row, -1)
            first = blocks.row * self._num_columns + self._first_columns[blocks.group] + blocks.first_index
            places[index] += range(first, first + len(blocks.block_ids))
            block_ids[index] += blocks.block_ids
        return [*accumulate(map(len, places[:-1]), initial=0)], [*chain(*places)], [*chain(*block_ids)]


def _lengths(entry: RowAdmission) -> tuple[int, ...]:
    num_computed = entry.num_computed_tokens
    return len(entry.token_ids), num_computed, entry.max_total_tokens, num_computed, num_computed, 0


def _integers(values: Sequence[int]) -> np.ndarray:
    """[len(values)] int64; for the tokens of a prompt four times as fast as numpy's own way."""
    return np.frombuffer(struct.pack(f"{len(values)}q", *values), dtype=np.int64)
