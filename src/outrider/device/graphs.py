"""Captured graphs for decoding: a step whose rows all decode is replayed, not launched kernel by kernel.

A graph serves every step of its shape: rows padded to a bucket, lengths below a bound, the parts of the sampler that
its requests need, and one number of drafts that is both verified and made. A step that makes more or fewer drafts than
it verifies uses the larger number: rows may have fewer real drafts than the layout has places, and the next step takes
no more of the new drafts than its plan says. So a changing number of drafts needs no extra shapes.

A graph reads its rows from one buffer that is overwritten before each replay; the rest of its layout depends on the
shape alone. Missing rows are the table's padding row, for which a step does nothing. A shape that was not prepared is
captured when it is first needed. This file does not depend on what the step computes.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import StepPlan
from outrider.core.sampling_params import MAX_LOGPROB_TOKEN_IDS
from outrider.device.assemble import Assembler, Layout
from outrider.device.readback import Packed
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.platforms.accelerator import Accelerator, Graph

ROW_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of rows of a graph; steps with more rows are not replayed."""

_FIRST_LENGTH_BOUND = 4096
_LENGTH_STEP = 8
"""Bounds on lengths: each is this many times the one before, up to max_model_len."""

_LOGPROBS = (0, 5, 20)
"""Numbers of top log-probabilities that a graph returns; a request reads as many as it requested."""

_REPLAYS = 3
"""Number of replays per measurement of a graph."""

_RANDOM = ("random", "truncation")
"""Operations on logits in graphs for random rows; rows that need others get a graph with every operation."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Key of a graph."""

    num_rows: int
    length_bound: int
    needs: tuple[str, ...]
    """Operations on logits that are applied to every sample."""
    num_drafts: int
    """Drafts that a row verifies, and that the step makes."""
    num_logprobs: int | None = None
    num_given: int = 0


@dataclass(frozen=True, slots=True)
class Captured:
    """One graph, with the tensors that it reads and writes."""

    graph: Graph
    inputs: Tensor  # [2, num_rows] int64: table rows, upper bound on the drafts of each
    packed: Packed
    layout: Layout  # its tensors are read by the graph


class StepGraphs:
    """The graphs of one step, in one pool of memory: only one is replayed at a time."""

    def __init__(
        self,
        run: Callable[[Layout], Packed],
        *,
        assembler: Assembler,
        table: RequestTable,
        staging: Staging,
        accelerator: Accelerator,
        max_rows: int,
        max_model_len: int,
        widths: Sequence[int],
    ) -> None:
        """`widths`: numbers of drafts that a step may have, ascending; rows are padded to one of them."""
        self._run = run
        self._assembler = assembler
        self._table = table
        self._staging = staging
        self._buckets = [size for size in ROW_BUCKETS if size < max_rows] + [min(max_rows, ROW_BUCKETS[-1])]
        self._bounds = [_FIRST_LENGTH_BOUND]
        while self._bounds[-1] < max_model_len:
            self._bounds.append(self._bounds[-1] * _LENGTH_STEP)
        self._bounds[-1] = min(self._bounds[-1], max_model_len)
        self._widths = tuple(widths)
        self._random_bits = sum(table.sampling.bits[name] for name in _RANDOM)
        self._accelerator = accelerator
        self._pool = accelerator.graph_pool()
        self._captured: dict[Shape, Captured] = {}

    @property
    def num_captured(self) -> int:
        return len(self._captured)

    def prepare(self) -> None:
        """Capture greedy and random rows in every bucket, at every number of drafts; the largest first."""
        for needs in ((), _RANDOM):
            for width in reversed(self._widths):
                for size in reversed(self._buckets):
                    self.captured(Shape(size, self._bounds[0], needs, width))

    def measure(self) -> dict[tuple[int, int], float]:
        """Seconds of a step by (rows, drafts), of the prepared greedy graphs replayed with padding rows: the time to
        read the context of real rows is not included. Blocks the host; call it before there are requests."""
        return {
            (size, width): self._measured(Shape(size, self._bounds[0], (), width))
            for width in self._widths
            for size in self._buckets
        }

    def _measured(self, shape: Shape) -> float:
        return _median_seconds(self.captured(shape).graph, self._accelerator)

    def replay(self, plan: StepPlan) -> Packed | None:
        """Replay the step's graph; None if not all rows decode, or if there are more than a graph has."""
        num_rows = len(plan.rows)
        if num_rows > self._buckets[-1]:
            return None
        if not all(row.does_sample and row.num_tokens == 1 + row.num_drafts for row in plan.rows):
            return None
        if any(row.num_scored or row.masks for row in plan.rows):
            return None
        rows = [row.row for row in plan.rows]
        num_drafts = max(plan.num_proposals, *(row.num_drafts for row in plan.rows))
        shape = self._shape(
            rows,
            length=max(row.length_bound for row in plan.rows),
            num_drafts=next(width for width in self._widths if width >= num_drafts),
        )
        captured = self.captured(shape)
        inputs = np.zeros(captured.inputs.shape, dtype=np.int64)
        inputs[0] = self._table.padding_row
        inputs[0, :num_rows] = rows
        inputs[1, :num_rows] = [row.num_drafts for row in plan.rows]
        self._staging.put_into(captured.inputs, inputs)
        captured.graph.replay()
        return captured.packed

    def _shape(self, rows: list[int], *, length: int, num_drafts: int) -> Shape:
        bits = int(np.bitwise_or.reduce(self._table.sampling.needs[rows]))
        needs: tuple[str, ...] = _RANDOM if bits else ()
        if bits & ~self._random_bits:
            needs = tuple(self._table.sampling.operations)
        num_logprobs = int(self._table.sampling.num_logprobs[rows].max())
        return Shape(
            next(size for size in self._buckets if size >= len(rows)),
            next(bound for bound in self._bounds if bound >= length),
            needs,
            num_drafts,
            None if num_logprobs < 0 else next(count for count in (*_LOGPROBS, num_logprobs) if count >= num_logprobs),
            MAX_LOGPROB_TOKEN_IDS if self._table.sampling.num_given[rows].any() else 0,
        )

    def captured(self, shape: Shape) -> Captured:
        """The graph of a shape; captured now if it is the first time."""
        if shape not in self._captured:
            self._captured[shape] = self._capture(shape)
        return self._captured[shape]

    def _capture(self, shape: Shape) -> Captured:
        inputs = torch.zeros(2, shape.num_rows, dtype=torch.int64, device=self._table.num_tokens.device)
        inputs[0].fill_(self._table.padding_row)
        layout = self._assembler.lay_out_decoding(
            inputs[0],
            inputs[1],
            length_bound=shape.length_bound,
            num_drafts=shape.num_drafts,
            num_proposals=shape.num_drafts,
            needs=shape.needs,
            num_logprobs=shape.num_logprobs,
            num_given=shape.num_given,
        )
        self._run(layout)  # nothing may be compiled or allocated for the first time under capture
        graph, packed = self._accelerator.capture(lambda: self._run(layout), pool=self._pool)
        return Captured(graph, inputs, packed, layout)


def _median_seconds(graph: Graph, accelerator: Accelerator) -> float:
    """Median time of a few replays; one replay before them fills caches."""
    events = [accelerator.event(has_timing=True) for _ in range(_REPLAYS + 1)]
    graph.replay()
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    events[-1].synchronize()
    return statistics.median(first.elapsed_time(second) for first, second in pairwise(events)) / 1e3
