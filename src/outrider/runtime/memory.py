"""Divides the bytes for the KV cache into snapshots of states and blocks, for target and drafter together.

A GPU's budget is measured after the weights are loaded and the largest step has run once, so that its peak is known.
The budget keeps the terms of the sum as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError
from outrider.core.kv_groups import BlockGroup
from outrider.platforms.accelerator import Accelerator

CPU_KV_BYTES = 1 << 30
"""KV cache on a CPU, before the factor gpu_memory_utilization: fixed, because other programs share the memory."""

_GIB = float(1 << 30)


@dataclass(frozen=True, slots=True)
class KVBudget:
    """Bytes for the KV cache, with an explanation of how they were computed."""

    num_bytes: int
    explanation: str


def cpu_kv_budget(utilization: float) -> KVBudget:
    """A fixed size, because the engine shares a CPU's memory with other programs."""
    num_bytes = int(CPU_KV_BYTES * utilization)
    return KVBudget(num_bytes, f"{utilization:g} of {CPU_KV_BYTES / _GIB:g} GiB")


class MemoryMeasurement:
    """Measures peak memory. Create it after loading the weights; call `kv_budget` after the largest steps have run."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._weights = accelerator.begin_memory_measurement()

    def kv_budget(self, utilization: float) -> KVBudget:
        """Bytes that `utilization` of the device leaves beside the weights, the peak of a step, as much again for
        captured graphs, and the memory held outside of PyTorch."""
        figures = self._accelerator.end_memory_measurement()
        step = figures.peak - self._weights
        other = figures.total - figures.free - figures.reserved
        num_bytes = int(figures.total * utilization) - self._weights - 2 * step - other
        explanation = (
            f"{max(num_bytes, 0) / _GIB:.2f} GiB = {utilization:g} of {figures.total / _GIB:.2f} GiB"
            f" - {self._weights / _GIB:.2f} weights and tables - 2 x {step / _GIB:.2f} largest step (eager, graphs)"
            f" - {other / _GIB:.2f} held outside of PyTorch"
        )
        return KVBudget(num_bytes, explanation)


SNAPSHOT_SHARE = 4
"""Snapshots of states take at most 1 / SNAPSHOT_SHARE of the budget: a snapshot is as large as many blocks."""

SNAPSHOTS_PER_REQUEST = 4
"""Number of snapshots per request that can run at once: shared prefixes, ends of prompts and of earlier turns."""


def size_snapshots(config: EngineConfig, budget: KVBudget, *, bytes_per_snapshot: int) -> int:
    """Number of snapshots of states for prefix caching; 0 if it is off."""
    if not config.enable_prefix_caching:
        return 0
    most = SNAPSHOTS_PER_REQUEST * config.num_rows
    return max(0, min(most, budget.num_bytes // SNAPSHOT_SHARE // bytes_per_snapshot))


def without(budget: KVBudget, num_bytes: int, what: str) -> KVBudget:
    """The budget that remains after `num_bytes` of it go to `what`."""
    if num_bytes == 0:
        return budget
    return KVBudget(budget.num_bytes - num_bytes, f"{budget.explanation} - {num_bytes / _GIB:.2f} {what}")


def size_groups(
    config: EngineConfig,
    budget: KVBudget,
    *,
    groups: Sequence[BlockGroup],
    bytes_per_block: Sequence[int],
    max_model_len: int,
) -> tuple[int, ...]:
    """Number of blocks of each group, null block included. `bytes_per_block`: in all layers of the group.

    Every group gets the same number of tokens, but none more than its requests can use (`_most_blocks`); the others
    share what it leaves. Raises ConfigError if a group would have less than two blocks.
    """
    if config.num_gpu_blocks_override is not None:
        return (config.num_gpu_blocks_override,) * len(groups)
    most = [1 + _most_blocks(config, group, max_model_len) for group in groups]
    counts = [0] * len(groups)
    num_bytes, waiting = budget.num_bytes, sorted(range(len(groups)), key=lambda index: most[index])
    while waiting:
        share = num_bytes // max(1, sum(bytes_per_block[index] for index in waiting))  # 0 bytes: nothing is kept
        index = waiting.pop(0)
        counts[index] = min(most[index], share)
        num_bytes -= counts[index] * bytes_per_block[index]
    if min(counts) < 2:
        raise ConfigError(
            f"one KV block takes {sum(bytes_per_block)} bytes and there is room for {max(min(counts), 0)}: two are the"
            f" least ({budget.explanation}). Raise gpu_memory_utilization or choose a smaller model."
        )
    return tuple(counts)


def _most_blocks(config: EngineConfig, group: BlockGroup, max_model_len: int) -> int:
    """Blocks that a group can use: those of max_num_seqs full-length requests; with a window fewer.

    Under a window each request keeps the window, twice a step's tokens (one step in flight, one planned) and the blocks
    at both ends. That is counted twice, once for requests that run and once for prefixes in the cache.
    """
    whole = group.num_blocks(max_model_len)
    if group.window is None:
        return config.num_rows * whole
    per_row = group.num_blocks(group.window + 2 * config.step_token_budget) + 2
    return config.num_rows * min(whole, 2 * per_row)
