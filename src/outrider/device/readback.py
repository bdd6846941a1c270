"""Device to host, in one copy per step: the only module that waits for the device.

`pack` lays what the host needs end to end, on the device; `begin` starts the copy; `Handle.wait` is called one step
later. Floats travel as their bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.plan import RowPlan, RowResult, StepPlan, StepResult, TokenLogprobs
from outrider.device.staging import PinnedRing
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.reference.sampling import Logprobs
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
        for index, name in enumerate(names):
            if name.endswith("logprobs"):
                floats = parts[index].to(torch.int32).view(torch.float32).view(shapes[index])
                values[name] = floats.tolist()
        rows, start, scored = [], 0, 0
        for index, row in enumerate(self.plan.rows):
            rows.append(_row_result(row, index, start, scored, values))
            start += self._packed.num_samples[index]
            scored += row.num_scored
        return StepResult(step_id=self.plan.step_id, rows=tuple(rows))


def _row_result(row: RowPlan, index: int, start: int, scored: int, values: dict[str, list]) -> RowResult:
    count = values["num_tokens"][index]
    samples = range(start, start + count)
    params = row.params
    logprobs: tuple[TokenLogprobs, ...] = ()
    if params.num_logprobs is not None:
        num_given = len(params.logprob_token_ids or ())
        logprobs = tuple(_token_logprobs(values, "", place, params.num_logprobs, num_given) for place in samples)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    if row.num_scored:
        most = params.prompt_logprobs or 0
        places = range(scored, scored + row.num_scored)
        prompt_logprobs = tuple(_token_logprobs(values, "prompt_", place, most, 0) for place in places)
    return RowResult(
        request_id=row.request_id,
        epoch=row.epoch,
        token_ids=tuple(values["token_ids"][index][:count]),
        num_drafts=values["num_drafts"][index],
        num_accepted=values["num_accepted"][index],
        logits_hashes=tuple(values["hashes"][sample] for sample in samples) if "hashes" in values else (),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        drafts=tuple(values["drafts"][index][1 : 1 + values["drafts"][index][0]]) if row.masks else (),
    )


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


def pack(batch: StepBatch, *, sampled: Sampled, choice: Choice, scores: Logprobs | None = None) -> Packed:
    """Lay the results of one step end to end; does not wait. `scores`: of the prompt's own tokens."""
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


def add_drafts(packed: Packed, batch: StepBatch, table: RequestTable) -> Packed:
    """The same results with the drafts of the next step behind them: the number of real ones, then the drafts."""
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
