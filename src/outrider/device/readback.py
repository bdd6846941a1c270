"""Device to host, in one copy per step. `Handle.wait` is where the host waits for a step, one step late.

`pack` concatenates the results on the device, `begin` starts the copy. Floats are copied as their bits. The rings of
pinned buffers wait for a copy only if more steps are in flight than they have buffers.
"""

from array import array
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from outrider.core.plan import RowResult, StepPlan, StepResult, TokenLogprobs
from outrider.device.staging import PinnedRing
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Logprobs, Verified
from outrider.platforms.accelerator import Event
from outrider.platforms.base import BasePlatform
from outrider.sampling.sampler import Sampled

_ALWAYS = ("token_ids", "num_tokens", "num_accepted", "num_drafts")
"""Parts of every step, in this order: tokens [R, K + 1], the others [R]."""

_RING = 8
"""Number of results that may wait to be read; larger than the number of steps in flight."""

_LEAST = 1024
"""Number of integers in the smallest buffer."""


class StepOutput(Protocol):
    """Results of a step, still on the device, in one piece."""

    @property
    def data(self) -> Tensor:
        """[size] int64."""

    def read(self, plan: StepPlan, host: Tensor) -> StepResult:
        """Results row by row, from a copy of `data` on the host."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Results of a step, still on the device. It may have more rows than the plan: padding comes last."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    data: Tensor  # [sum of sizes] int64
    num_samples: tuple[int, ...]
    """Number of samples in the layout of each row."""

    def read(self, plan: StepPlan, host: Tensor) -> StepResult:
        """Emitted tokens, and what the requests asked for beside them."""
        return unpack(plan, self, host)


@dataclass(frozen=True, slots=True)
class PooledNumbers:
    """Results of a step of a model that pools, still on the device."""

    data: Tensor  # [half of the numbers, rounded up] int64: the bits of two fp32 numbers in each
    width: int
    """Numbers of a result."""

    def read(self, plan: StepPlan, host: Tensor) -> StepResult:
        """The numbers of each row's results."""
        rows, start = [], 0
        numbers = host.view(torch.float32).numpy()
        for row in plan.rows:
            assert row.pooled is not None, f"request {row.request_id} generates"
            stop = start + len(row.pooled.offsets) * self.width
            values = array("f")
            values.frombytes(numbers[start:stop].tobytes())
            start = stop
            rows.append(
                RowResult(
                    request_id=row.request_id,
                    epoch=row.epoch,
                    token_ids=(),
                    num_drafts=0,
                    num_accepted=0,
                    pooled=values,
                )
            )
        return StepResult(step_id=plan.step_id, rows=tuple(rows))


@dataclass(frozen=True, slots=True)
class Handle:
    """A step in flight."""

    plan: StepPlan
    _packed: StepOutput
    _host: Tensor  # [sum of sizes] int64
    _event: Event | None

    @property
    def is_ended_at_launch(self) -> bool:
        """True if launching waits for the step, as on a CPU."""
        return self._event is None

    def wait(self) -> StepResult:
        """Block until the step has ended, and return its results."""
        if self._event is not None:
            self._event.synchronize()
        return self._packed.read(self.plan, self._host)


def unpack(plan: StepPlan, packed: Packed, host: Tensor) -> StepResult:
    """Results row by row, from the packed data on the host ([sum of sizes] int64)."""
    flat = host.tolist()
    num_rows, width = packed.shapes[0]
    first = num_rows * width
    rows = [
        RowResult(
            request_id=row.request_id,
            epoch=row.epoch,
            token_ids=tuple(flat[start : start + num_tokens]),
            num_drafts=num_drafts,
            num_accepted=num_accepted,
        )
        for row, start, num_tokens, num_accepted, num_drafts in zip(
            plan.rows,
            range(0, first, width),
            flat[first : first + num_rows],
            flat[first + num_rows : first + 2 * num_rows],
            flat[first + 2 * num_rows : first + 3 * num_rows],
            strict=False,  # padding comes last
        )
    ]
    if len(packed.names) > len(_ALWAYS):
        _add_extras(plan, rows, packed, _extras(packed, host))
    return StepResult(step_id=plan.step_id, rows=tuple(rows))


def _extras(packed: Packed, host: Tensor) -> dict[str, list]:
    """Parts that only some steps have, by name; floats were copied as their bits."""
    parts = torch.split(host, [shape.numel() for shape in packed.shapes])
    values = {}
    for name, shape, part in zip(packed.names, packed.shapes, parts, strict=True):
        if name.endswith("logprobs"):
            part = part.to(torch.int32).view(torch.float32)
        if name not in _ALWAYS:
            values[name] = part.view(shape).tolist()
    return values


def _add_extras(plan: StepPlan, rows: list[RowResult], packed: Packed, values: dict[str, list]) -> None:
    """Add hashes and log-probabilities of emitted tokens and of scored prompt tokens, if the step has them."""
    start = scored = 0
    for index, (row, result, num_samples) in enumerate(zip(plan.rows, rows, packed.num_samples, strict=False)):
        samples = range(start, start + len(result.token_ids))
        if "hashes" in values:
            result.logits_hashes = tuple([values["hashes"][sample] for sample in samples])
        params = row.params
        if params.num_logprobs is not None:
            num_given = len(params.logprob_token_ids or ())
            result.logprobs = tuple(
                _token_logprobs(values, "", place, params.num_logprobs, num_given) for place in samples
            )
        if row.num_scored:
            most = params.prompt_logprobs or 0
            places = range(scored, scored + row.num_scored)
            result.prompt_logprobs = tuple(_token_logprobs(values, "prompt_", place, most, 0) for place in places)
        if row.has_grammar:
            num_drafts, *drafts = values["drafts"][index]
            result.drafts = tuple(drafts[:num_drafts])
        start += num_samples
        scored += row.num_scored


def _token_logprobs(
    values: dict[str, list], prefix: str, place: int, num_logprobs: int, num_given: int
) -> TokenLogprobs:
    return TokenLogprobs(
        logprob=values[prefix + "logprobs"][place],
        rank=values[prefix + "ranks"][place],
        top_ids=tuple(values[prefix + "top_ids"][place][:num_logprobs]),
        top_logprobs=tuple(values[prefix + "top_logprobs"][place][:num_logprobs]),
        given_logprobs=tuple(values[prefix + "given_logprobs"][place][:num_given]) if num_given else (),
        given_ranks=tuple(values[prefix + "given_ranks"][place][:num_given]) if num_given else (),
    )


def pack(batch: StepBatch, *, sampled: Sampled, verified: Verified, scores: Logprobs | None = None) -> Packed:
    """Concatenate the results of one step; does not wait. `scores`: log-probabilities of prompt tokens."""
    always = (verified.token_ids, verified.num_tokens, verified.num_accepted, batch.num_drafts)
    parts: dict[str, Tensor] = dict(zip(_ALWAYS, always, strict=True))
    if sampled.logits_hashes is not None:
        parts["hashes"] = sampled.logits_hashes
    if sampled.logprobs is not None:
        assert sampled.ranks is not None and sampled.top_ids is not None and sampled.top_logprobs is not None
        parts["logprobs"] = _bits(sampled.logprobs)
        parts["ranks"] = sampled.ranks
        parts["top_ids"] = sampled.top_ids
        parts["top_logprobs"] = _bits(sampled.top_logprobs)
        if batch.sample.num_given:
            assert sampled.given_logprobs is not None and sampled.given_ranks is not None
            parts["given_logprobs"] = _bits(sampled.given_logprobs)
            parts["given_ranks"] = sampled.given_ranks
    if scores is not None:
        parts["prompt_logprobs"] = _bits(scores.chosen)
        parts["prompt_ranks"] = scores.ranks
        parts["prompt_top_ids"] = scores.top_ids
        parts["prompt_top_logprobs"] = _bits(scores.top_logprobs)
    data = torch.cat([part.reshape(-1).to(torch.int64) for part in parts.values()])
    return Packed(tuple(parts), tuple(part.shape for part in parts.values()), data, batch.samples_of_rows)


def pack_numbers(numbers: Tensor) -> PooledNumbers:
    """numbers [M, width] fp32, the results of a step of a model that pools; does not wait."""
    flat = numbers.reshape(-1)
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return PooledNumbers(flat.contiguous().view(torch.int64), numbers.shape[1])


def add_drafts(packed: Packed, batch: StepBatch, table: RequestTable) -> Packed:
    """Append the drafts for the next step to the results: for each row the number of real ones, then the drafts."""
    drafts = torch.cat([table.num_drafts[batch.rows].unsqueeze(1), table.drafts[batch.rows]], dim=1)
    return Packed(
        (*packed.names, "drafts"),
        (*packed.shapes, drafts.shape),
        torch.cat([packed.data, drafts.reshape(-1)]),
        packed.num_samples,
    )


def _bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32)


class Readback:
    """Starts the copies."""

    def __init__(self, platform: BasePlatform) -> None:
        self._ring = PinnedRing(_RING, _LEAST, platform.accelerator) if platform.accelerator is not None else None

    def begin(self, plan: StepPlan, packed: StepOutput) -> Handle:
        """Start the copy of one step's results; does not wait."""
        if self._ring is None:
            return Handle(plan, packed, packed.data, None)
        slot = self._ring.take(packed.data.numel())
        host = slot.buffer[: packed.data.numel()]
        host.copy_(packed.data, non_blocking=True)
        slot.event.record()
        return Handle(plan, packed, host, slot.event)
