"""Measures the KV budget: runs the largest possible step before there are requests, and takes its peak memory.

All rows of this step are the table's padding row, so it computes everything and emits nothing.
"""

from collections.abc import Callable

import torch

from outrider.core.config import EngineConfig
from outrider.core.plan import RowPlan, StepPlan
from outrider.core.sampling_params import SamplingParams
from outrider.platforms.accelerator import Accelerator
from outrider.runtime.memory import KVBudget, MemoryMeasurement
from outrider.runtime.step import Step


@torch.inference_mode()
def measure_kv_budget(
    step: Step, config: EngineConfig, *, accelerator: Accelerator, when_compiled: Callable[[], None]
) -> KVBudget:
    """Bytes that the device has for KV blocks. `when_compiled` blocks until no other thread compiles kernels. It is
    called after a first step, before the step with random rows."""
    measurement = MemoryMeasurement(accelerator)
    table = step.table
    largest = _largest_plan(config, table.padding_row)
    step(step.assembler.lay_out(largest, table))
    when_compiled()
    table.sampling.needs[table.padding_row] = table.sampling.bits["random"] | table.sampling.bits["truncation"]
    step(step.assembler.lay_out(largest, table))
    table.sampling.needs[table.padding_row] = 0
    return measurement.kv_budget(config.gpu_memory_utilization)


def _largest_plan(config: EngineConfig, padding_row: int) -> StepPlan:
    """A plan with as many tokens and samples as a step can have, all in the padding row."""
    width = 1 + config.num_speculative_tokens
    left = config.step_token_budget
    counts: list[int] = []
    while left >= width and len(counts) < config.num_rows:
        counts.append(width)
        left -= width
    rows = [_padding_plan(padding_row, count, num_drafts=width - 1) for count in counts]
    if left > 0:
        rows.append(_padding_plan(padding_row, left, num_drafts=0))
    return StepPlan(
        step_id=0, admissions=(), new_blocks=(), rows=tuple(rows), num_proposals=config.num_speculative_tokens
    )


def _padding_plan(row: int, num_tokens: int, *, num_drafts: int) -> RowPlan:
    return RowPlan(
        request_id="",
        epoch=0,
        row=row,
        num_tokens=num_tokens,
        num_drafts=num_drafts,
        does_sample=True,
        length_bound=num_tokens,
        params=SamplingParams(),
    )
