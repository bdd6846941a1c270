"""Device to host, in one copy per step: the only module that waits for the device.

`begin` packs what the host needs and starts the copy; `Handle.wait` is called one step later. Floats travel as
their bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.plan import RowResult, StepPlan, StepResult, TokenLogprobs
from outrider.device.step_batch import StepBatch
from outrider.sampling.sampler import Sampled
from outrider.sampling.verifier import Choice

_ALWAYS = ("token_ids", "num_tokens", "num_accepted", "num_drafts")
"""Parts of every step: tokens [R, K + 1], the others [R]."""


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
    """The host's half: results row by row. `packed` is [sum of sizes] int64, the parts laid end to end.

    The first four parts are those of `Readback.begin`, in its order; the others are hashes and log-probabilities.
    """
    flat = packed.tolist()
    num_rows, width = shapes[0]
    counts = num_rows * width
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
            range(0, counts, width),
            flat[counts : counts + num_rows],
            flat[counts + num_rows : counts + 2 * num_rows],
            flat[counts + 2 * num_rows : counts + 3 * num_rows],
            strict=True,
        )
    ]
    if len(names) > len(_ALWAYS):
        _add_extras(plan, rows, _extras(names, shapes, packed))
    return StepResult(step_id=plan.step_id, rows=tuple(rows))


def _extras(names: tuple[str, ...], shapes: tuple[torch.Size, ...], packed: Tensor) -> dict[str, list]:
    """What is there only when asked for, by name; floats travelled as their bits."""
    parts = torch.split(packed, [shape.numel() for shape in shapes])
    values = {}
    for name, shape, part in zip(names, shapes, parts, strict=True):
        if name in _ALWAYS:
            continue
        if name in ("logprobs", "top_logprobs"):
            part = part.to(torch.int32).view(torch.float32)
        values[name] = part.view(shape).tolist()
    return values


def _add_extras(plan: StepPlan, rows: list[RowResult], values: dict[str, list]) -> None:
    """Hashes and log-probabilities of the emitted tokens, where the step has them."""
    start = 0
    for row, result in zip(plan.rows, rows, strict=True):
        samples = range(start, start + len(result.token_ids))
        start += row.num_samples
        if "hashes" in values:
            result.logits_hashes = tuple(values["hashes"][sample] for sample in samples)
        wanted = row.params.logprobs
        if wanted is not None:
            result.logprobs = tuple(
                TokenLogprobs(
                    logprob=values["logprobs"][sample],
                    rank=values["ranks"][sample],
                    top_ids=tuple(values["top_ids"][sample][:wanted]),
                    top_logprobs=tuple(values["top_logprobs"][sample][:wanted]),
                )
                for sample in samples
            )


class Readback:
    """Starts the copies."""

    def begin(self, plan: StepPlan, batch: StepBatch, *, sampled: Sampled, choice: Choice) -> Handle:
        """Pack and start the copy of one step's results; does not wait."""
        always = (choice.token_ids, choice.num_tokens, choice.num_accepted, batch.num_drafts)
        parts: dict[str, Tensor] = dict(zip(_ALWAYS, always, strict=True))
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
