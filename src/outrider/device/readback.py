"""Device to host, in one copy per step: the only module that waits for the device.

`begin` packs what the host needs and starts the copy; `Handle.wait` is called one step later. Floats travel as
their bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.plan import RowPlan, RowResult, StepPlan, StepResult, TokenLogprobs
from outrider.device.step_batch import StepBatch
from outrider.sampling.sampler import Sampled
from outrider.sampling.verifier import Choice


@dataclass(frozen=True, slots=True)
class Handle:
    """A step in flight."""

    plan: StepPlan
    _names: tuple[str, ...]
    _shapes: tuple[torch.Size, ...]
    _packed: Tensor  # [sum of sizes] int64

    def wait(self) -> StepResult:
        """Block until the step has ended, and return what it gave."""
        return unpack(self.plan, self._names, self._shapes, self._packed)


def unpack(plan: StepPlan, names: tuple[str, ...], shapes: tuple[torch.Size, ...], packed: Tensor) -> StepResult:
    """The host's half: the parts laid end to end in `packed` ([sum of sizes] int64), row by row."""
    parts = torch.split(packed, [shape.numel() for shape in shapes])
    values = {name: part.view(shape).tolist() for name, shape, part in zip(names, shapes, parts, strict=True)}
    if "logprobs" in values:
        for name in ("logprobs", "top_logprobs"):
            index = names.index(name)
            floats = parts[index].to(torch.int32).view(torch.float32).view(shapes[index])
            values[name] = floats.tolist()
    rows, start = [], 0
    for index, row in enumerate(plan.rows):
        rows.append(_row_result(row, index, start, values))
        start += row.num_samples
    return StepResult(step_id=plan.step_id, rows=tuple(rows))


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


class Readback:
    """Starts the copies."""

    def begin(self, plan: StepPlan, batch: StepBatch, *, sampled: Sampled, choice: Choice) -> Handle:
        """Pack and start the copy of one step's results; does not wait."""
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
        packed = torch.cat([part.reshape(-1).to(torch.int64) for part in parts.values()])
        return Handle(plan, tuple(parts), tuple(part.shape for part in parts.values()), packed)
