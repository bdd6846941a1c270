"""Device to host, in one copy per step: the only module that waits for the device.

`pack` lays what the host needs end to end, on the device; `begin` starts the copy; `Handle.wait` is called one step
later. Floats travel as their bits.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.plan import RowPlan, RowResult, StepPlan, StepResult, TokenLogprobs
from outrider.device.staging import PinnedRing
from outrider.device.step_batch import StepBatch
from outrider.sampling.sampler import Sampled
from outrider.sampling.verifier import Choice

_RING = 8
"""Results that may wait to be read: more than there are steps in flight."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Results of a step, still on the device. It may have more rows than the plan: padding comes last."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    data: Tensor  # [sum of sizes] int64
    num_samples: tuple[int, ...]
    """Samples laid out for each row."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A step in flight."""

    plan: StepPlan
    _packed: Packed
    _host: Tensor  # [sum of sizes] int64
    _event: torch.cuda.Event | None

    def wait(self) -> StepResult:
        """Block until the step has ended, and return what it gave."""
        if self._event is not None:
            self._event.synchronize()
        names, shapes = self._packed.names, self._packed.shapes
        parts = torch.split(self._host, [shape.numel() for shape in shapes])
        values = {name: part.view(shape).tolist() for name, shape, part in zip(names, shapes, parts, strict=True)}
        if "logprobs" in values:
            for name in ("logprobs", "top_logprobs"):
                index = names.index(name)
                floats = parts[index].to(torch.int32).view(torch.float32).view(shapes[index])
                values[name] = floats.tolist()
        starts = itertools.accumulate(self._packed.num_samples, initial=0)
        rows = [
            _row_result(row, index, start, values)
            for index, (row, start) in enumerate(zip(self.plan.rows, starts, strict=False))
        ]
        return StepResult(step_id=self.plan.step_id, rows=tuple(rows))


def _row_result(row: RowPlan, index: int, start: int, values: dict[str, list]) -> RowResult:
    count = values["num_tokens"][index]
    samples = range(start, start + count)
    wanted = row.params.logprobs
    logprobs: tuple[TokenLogprobs, ...] = ()
    if wanted is not None:
        logprobs = tuple(
            TokenLogprobs(
                logprob=values["logprobs"][sample],
                rank=values["ranks"][sample],
                top_ids=tuple(values["top_ids"][sample][:wanted]),
                top_logprobs=tuple(values["top_logprobs"][sample][:wanted]),
            )
            for sample in samples
        )
    return RowResult(
        request_id=row.request_id,
        epoch=row.epoch,
        token_ids=tuple(values["token_ids"][index][:count]),
        num_drafts=values["num_drafts"][index],
        num_accepted=values["num_accepted"][index],
        logits_hashes=tuple(values["hashes"][sample] for sample in samples) if "hashes" in values else (),
        logprobs=logprobs,
    )


def pack(batch: StepBatch, *, sampled: Sampled, choice: Choice) -> Packed:
    """Lay the results of one step end to end; does not wait."""
    parts: dict[str, Tensor] = {
        "token_ids": choice.token_ids,
        "num_tokens": choice.num_tokens,
        "num_accepted": choice.num_accepted,
        "num_drafts": batch.num_drafts,
    }
    if sampled.logits_hashes is not None:
        parts["hashes"] = sampled.logits_hashes
    if sampled.logprobs is not None:
        assert sampled.ranks is not None and sampled.top_ids is not None and sampled.top_logprobs is not None
        parts["logprobs"] = sampled.logprobs.contiguous().view(torch.int32)
        parts["ranks"] = sampled.ranks
        parts["top_ids"] = sampled.top_ids
        parts["top_logprobs"] = sampled.top_logprobs.contiguous().view(torch.int32)
    data = torch.cat([part.reshape(-1).to(torch.int64) for part in parts.values()])
    return Packed(tuple(parts), tuple(part.shape for part in parts.values()), data, batch.samples_of_rows)


class Readback:
    """Starts the copies."""

    def __init__(self, device: torch.device) -> None:
        self._ring = PinnedRing(_RING, 1024) if device.type == "cuda" else None

    def begin(self, plan: StepPlan, packed: Packed) -> Handle:
        """Start the copy of one step's results; does not wait."""
        if self._ring is None:
            return Handle(plan, packed, packed.data, None)
        slot = self._ring.take(packed.data.numel())
        host = slot.buffer[: packed.data.numel()]
        host.copy_(packed.data, non_blocking=True)
        slot.event.record()
        return Handle(plan, packed, host, slot.event)
