"""Captured graphs: a step is replayed, not launched kernel by kernel.

A graph serves every step of its shape: rows padded to a bucket, lengths below a bound, the parts of the sampler that
its requests need, and one number of drafts that is both verified and made. A step that makes more or fewer drafts than
it verifies uses the larger number: rows may have fewer real drafts than the layout has places, and the next step takes
no more of the new drafts than its plan says. So a changing number of drafts needs no extra shapes.

If all rows decode, the shape says where each row's tokens are, and the graph reads the rows alone. A step with prompt
chunks (a mixed step) is padded to a number of tokens, too, and its graph reads the whole layout. Either way this is one
buffer that is overwritten before each replay. Missing rows are the table's padding row, for which a step does nothing.

A step with grammars is two graphs, so that the host makes masks while the first one, the forward pass, runs.

A shape that was not prepared is captured when it is first needed. This file does not depend on what the step computes.
"""

import statistics
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import StepPlan
from outrider.core.sampling_params import MAX_LOGPROB_TOKEN_IDS
from outrider.device.assemble import Assembler, Layout
from outrider.device.masks import MaskBuffer
from outrider.device.padded_layout import PaddedSizes
from outrider.device.readback import Packed
from outrider.device.staging import Staging
from outrider.device.table import RequestTable
from outrider.platforms.accelerator import Accelerator, Graph
from outrider.sampling.sampler import SampleMasks

ROW_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of rows of a graph; steps with more rows are not replayed."""

MIXED_ROW_BUCKETS = (16, 64, 128, 256)
"""Numbers of rows of the graph of a mixed step. Few: a padding row costs its samples, some µs in a step of many ms."""

MIXED_TOKEN_BUCKETS = (64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
"""Numbers of tokens of the graph of a mixed step, up to the most that a step may have. Few: each takes a tenth of a
second to capture, for each number of rows."""

_FEW_TOKENS = (256, 1024)
"""Numbers of tokens, beside the largest, of mixed steps that were not prepared: with parameters or lengths that are not
usual. So few graphs are captured while requests wait."""

_FIRST_LENGTH_BOUND = 4096
_FIRST_MIXED_LENGTH_BOUND = 8192

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
    num_tokens: int | None = None
    """Tokens of a mixed step; None: every row decodes."""
    has_masks: bool = False

    @property
    def padded_sizes(self) -> PaddedSizes:
        """Sizes of the layout of a mixed step."""
        assert self.num_tokens is not None, f"{self} is of steps whose rows all decode"
        num_samples = self.num_rows * (1 + self.num_drafts)
        return PaddedSizes(num_rows=self.num_rows, num_tokens=self.num_tokens, num_samples=num_samples)


class CapturedStep(Protocol):
    """The step that is captured, whole or in two parts."""

    def __call__(self, layout: Layout) -> Packed: ...

    def forward(self, layout: Layout) -> Any:
        """The first part."""

    def sample(self, layout: Layout, forwarded: Any, masks: SampleMasks | None = None) -> Packed:
        """The second part, from the result of the first."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One step, with the tensors that it reads and writes."""

    graph: Graph
    inputs: Tensor
    """int64; of decode rows [2, num_rows], table rows and upper bounds on their drafts; else a `PaddedSizes` buffer."""
    packed: Packed
    layout: Layout  # its tensors are read by the graph
    sampling: Graph | None = None  # the second part of a step with grammars
    forwarded: Any = None  # the tensors between the two parts


@dataclass(frozen=True, slots=True)
class Replay:
    """A step whose graph has its inputs."""

    captured: Captured
    num_samples: tuple[int, ...]
    """Number of samples in the layout of each row of the plan."""

    def run(self) -> Packed:
        """Launch the whole step."""
        assert self.captured.sampling is None, "the masks of this step are not there yet"
        self.captured.graph.replay()
        return self._packed()

    def forward(self) -> None:
        """Launch the first part of a step with grammars."""
        self.captured.graph.replay()

    def sample(self) -> Packed:
        """Launch the second part, once the masks are in their buffer."""
        assert self.captured.sampling is not None, "this step has one part"
        self.captured.sampling.replay()
        return self._packed()

    def _packed(self) -> Packed:
        return replace(self.captured.packed, num_samples=self.num_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The graphs that were captured at the start, and their cost."""

    num_decoding: int = 0
    num_mixed: int = 0
    most_rows: int = 0
    most_tokens: int = 0
    seconds: float = 0.0
    num_bytes: int = 0
    """Memory that the allocator took meanwhile."""


class StepGraphs:
    """The graphs of one step, in one pool of memory: only one is replayed at a time."""

    def __init__(
        self,
        step: CapturedStep,
        *,
        masks: MaskBuffer,
        assembler: Assembler,
        table: RequestTable,
        staging: Staging,
        accelerator: Accelerator,
        max_rows: int,
        max_tokens: int,
        max_model_len: int,
        widths: Sequence[int],
    ) -> None:
        """`widths`: numbers of drafts that a step may have, ascending; rows are padded to one of them."""
        self._step = step
        self._masks = masks
        self._assembler = assembler
        self._table = table
        self._staging = staging
        self._buckets = _up_to(max_rows, ROW_BUCKETS)
        self._mixed_rows = _up_to(max_rows, MIXED_ROW_BUCKETS)
        self._mixed_tokens = _up_to(max_tokens, MIXED_TOKEN_BUCKETS)
        self._bounds = _length_bounds(_FIRST_LENGTH_BOUND, max_model_len)
        self._mixed_bounds = _length_bounds(_FIRST_MIXED_LENGTH_BOUND, max_model_len)
        self._widths = tuple(widths)
        self._random_bits = sum(table.sampling.bits[name] for name in _RANDOM)
        self._accelerator = accelerator
        self._pool = accelerator.graph_pool()
        self._captured: dict[Shape, Captured] = {}
        self._run_before: set[Shape] = set()
        self.preparation = Preparation()

    @property
    def num_captured(self) -> int:
        return len(self._captured)

    def prepare(self) -> None:
        """Capture greedy and random rows in every bucket, at every number of drafts, then mixed steps; the largest
        first."""
        start, reserved = time.perf_counter(), self._accelerator.reserved_memory
        for needs in ((), _RANDOM):
            for width in reversed(self._widths):
                for size in reversed(self._buckets):
                    self.captured(Shape(size, self._bounds[0], needs, width))
        num_decoding = len(self._captured)
        for shape in self._prepared_mixed():
            self.captured(shape)
        self.preparation = Preparation(
            num_decoding=num_decoding,
            num_mixed=len(self._captured) - num_decoding,
            most_rows=self._buckets[-1],
            most_tokens=self._mixed_tokens[-1],
            seconds=time.perf_counter() - start,
            num_bytes=self._accelerator.reserved_memory - reserved,
        )

    def _prepared_mixed(self) -> Iterator[Shape]:
        """Mixed steps that are captured at the start: with any number of tokens, of random rows, which greedy ones may
        share, in the first bound on lengths."""
        for num_tokens in reversed(self._mixed_tokens):
            for index, num_rows in reversed(list(enumerate(self._mixed_rows))):
                if index == 0 or num_tokens > self._mixed_rows[index - 1]:  # else a smaller number of rows will do
                    yield Shape(num_rows, self._mixed_bounds[0], _RANDOM, self._widths[-1], num_tokens=num_tokens)

    def measure(self) -> dict[tuple[int, int], float]:
        """Seconds of a step by (rows, drafts), of the prepared greedy graphs replayed with padding rows: the time to
        read the context of real rows is not included. Blocks the host; call it before there are requests."""
        return {
            (size, width): self._measured(Shape(size, self._bounds[0], (), width))
            for width in self._widths
            for size in self._buckets
        }

    def measure_mixed(self) -> dict[int, float]:
        """Seconds of a mixed step by its number of tokens, of the prepared graphs with the most rows, replayed with
        padding: context is not read. Blocks the host; call it before there are requests."""
        most_rows = {shape.num_tokens: shape for shape in reversed(list(self._prepared_mixed()))}
        return {num_tokens: self._measured(shape) for num_tokens, shape in most_rows.items() if num_tokens is not None}

    def _measured(self, shape: Shape) -> float:
        return _median_seconds(self.captured(shape).graph, self._accelerator)

    def prepare_replay(self, plan: StepPlan) -> Replay | None:
        """Fill the inputs of the step's graph; None if it has more rows or tokens than a graph, or what only steps that
        are launched kernel by kernel have."""
        if any(row.num_scored for row in plan.rows):
            return None
        if all(row.does_sample and row.num_tokens == 1 + row.num_drafts for row in plan.rows):
            return self._prepare_decoding(plan)
        return self._prepare_mixed(plan)

    def _prepare_decoding(self, plan: StepPlan) -> Replay | None:
        num_rows = len(plan.rows)
        if num_rows > self._buckets[-1]:
            return None
        num_drafts = max(plan.num_proposals, *(row.num_drafts for row in plan.rows))
        captured = self.captured(
            self._shape(
                plan,
                num_rows=_least(self._buckets, num_rows),
                num_drafts=_least(self._widths, num_drafts),
            )
        )
        inputs = np.zeros(captured.inputs.shape, dtype=np.int64)
        inputs[0] = self._table.padding_row
        inputs[0, :num_rows] = [row.row for row in plan.rows]
        inputs[1, :num_rows] = [row.num_drafts for row in plan.rows]
        self._staging.put_into(captured.inputs, inputs)
        return Replay(captured, captured.packed.num_samples)

    def _prepare_mixed(self, plan: StepPlan) -> Replay | None:
        num_rows, num_tokens = len(plan.rows), plan.num_tokens
        if num_rows > self._mixed_rows[-1] or num_tokens > self._mixed_tokens[-1]:
            return None
        shape = self._shape(
            plan,
            num_rows=_least(self._mixed_rows, num_rows),
            num_drafts=self._widths[-1],
            num_tokens=_least(self._mixed_tokens, num_tokens),
        )
        if not shape.padded_sizes.fits(plan):
            return None
        captured = self.captured(shape)
        self._staging.put_into(captured.inputs, shape.padded_sizes.fill(plan, padding_row=self._table.padding_row))
        return Replay(captured, tuple([row.num_samples for row in plan.rows]))

    def _shape(self, plan: StepPlan, *, num_rows: int, num_drafts: int, num_tokens: int | None = None) -> Shape:
        """Key of the plan's graph, of sizes that were chosen before. Mixed steps that were not prepared share a few
        sizes, so that few graphs are captured while requests wait."""
        rows = [row.row for row in plan.rows]
        sampling = self._table.sampling
        bits = int(np.bitwise_or.reduce(sampling.needs[rows]))
        needs: tuple[str, ...] = _RANDOM if bits or num_tokens is not None else ()
        if bits & ~self._random_bits:
            needs = tuple(sampling.operations)
        num_logprobs = int(sampling.num_logprobs[rows].max())
        bounds = self._bounds if num_tokens is None else self._mixed_bounds
        shape = Shape(
            num_rows,
            _least(bounds, max(row.length_bound for row in plan.rows)),
            needs,
            num_drafts,
            None if num_logprobs < 0 else _least((*_LOGPROBS, max(num_logprobs, _LOGPROBS[-1])), num_logprobs),
            MAX_LOGPROB_TOKEN_IDS if sampling.num_given[rows].any() else 0,
            num_tokens,
            plan.has_grammars,
        )
        if num_tokens is None or shape in self._captured:
            return shape
        most = self._mixed_tokens[-1]
        few = [*(size for size in _FEW_TOKENS if size < most), most]
        return replace(shape, num_rows=self._mixed_rows[-1], num_tokens=_least(few, num_tokens))

    def captured(self, shape: Shape) -> Captured:
        """The graph of a shape; captured now if it is the first time."""
        if shape not in self._captured:
            self._captured[shape] = self._capture(shape)
        return self._captured[shape]

    def _capture(self, shape: Shape) -> Captured:
        inputs, layout = self._decoding_layout(shape) if shape.num_tokens is None else self._mixed_layout(shape)
        is_new, step = self._is_new(shape), self._step
        if not shape.has_masks:
            if is_new:
                step(layout)  # what kernels keep, they may not make for the first time under capture
            graph, packed = self._accelerator.capture(lambda: step(layout), pool=self._pool)
            return Captured(graph, inputs, packed, layout)
        masks = self._masks.read(shape.num_rows * (1 + shape.num_drafts))
        if is_new:
            step.sample(layout, step.forward(layout), masks)
        graph, forwarded = self._accelerator.capture(lambda: step.forward(layout), pool=self._pool)
        sampling, packed = self._accelerator.capture(lambda: step.sample(layout, forwarded, masks), pool=self._pool)
        return Captured(graph, inputs, packed, layout, sampling, forwarded)

    def _is_new(self, shape: Shape) -> bool:
        """True unless mixed steps with as many tokens and with as many rows have run: no kernel keeps anything for a
        pair of both."""
        if shape.num_tokens is None:
            return True
        parts = {replace(shape, num_rows=0), replace(shape, num_tokens=0)}
        is_new = not parts <= self._run_before
        self._run_before |= parts
        return is_new

    def _decoding_layout(self, shape: Shape) -> tuple[Tensor, Layout]:
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
        return inputs, layout

    def _mixed_layout(self, shape: Shape) -> tuple[Tensor, Layout]:
        sizes = shape.padded_sizes
        inputs = torch.empty(sizes.num_integers, dtype=torch.int64, device=self._table.num_tokens.device)
        self._staging.put_into(inputs, sizes.fill(None, padding_row=self._table.padding_row))
        layout = self._assembler.lay_out_padded(
            inputs,
            sizes,
            length_bound=shape.length_bound,
            num_drafts=shape.num_drafts,
            needs=shape.needs,
            num_logprobs=shape.num_logprobs,
            num_given=shape.num_given,
        )
        return inputs, layout


def _length_bounds(first: int, max_model_len: int) -> list[int]:
    """`first`, and multiples of it up to `max_model_len`."""
    bounds = [first]
    while bounds[-1] < max_model_len:
        bounds.append(bounds[-1] * _LENGTH_STEP)
    bounds[-1] = min(bounds[-1], max_model_len)
    return bounds


def _up_to(most: int, buckets: Sequence[int]) -> list[int]:
    """The buckets below `most`, and `most` itself or the last bucket."""
    return [size for size in buckets if size < most] + [min(most, buckets[-1])]


def _least(buckets: Sequence[int], size: int) -> int:
    """The least of ascending `buckets` that holds `size`."""
    return buckets[bisect_left(buckets, size)]


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
