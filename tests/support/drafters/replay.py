"""A test drafter that is given the answers and proposes the right token with a given probability.

A hash of a draft's position and of the position where drafting began decides whether it is right, so acceptance is
reproducible to the integer. It gives real verification at a chosen acceptance rate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.drafter import BaseDrafter, DrafterContext

_MULTIPLIER = 2654435761  # Knuth's multiplicative hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the replay drafter."""

    answers: tuple[tuple[int, ...], ...]
    """Token ids of each known answer, prompt and output together."""
    probability: float = 0.7
    """Share of drafts that are right."""


class Drafter(BaseDrafter):
    """Drafts from known answers; a request whose prompt begins none of them gets no drafts."""

    def __init__(self, context: DrafterContext) -> None:
        super().__init__(context)
        options: Options = context.options
        self._answers = options.answers
        self._threshold = int(options.probability * 1024)
        self._vocab_size = context.target_config.vocab_size

    def attach(self, table: RequestTable, staging: Staging) -> None:
        super().attach(table, staging)
        self._tokens = torch.full_like(table.token_ids, -1)

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        for entry in admissions:
            prompt = entry.token_ids[: entry.num_prompt_tokens]
            answer = next((a for a in self._answers if a[: len(prompt)] == prompt), ())
            answer = answer[: self._tokens.shape[1]]
            self._tokens[entry.row] = -1
            if answer:
                self._tokens[entry.row, : len(answer)] = self.staging.put({"answer": answer})["answer"].to(torch.int32)

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        length = self.table.num_tokens[batch.rows].unsqueeze(1)
        index = length + torch.arange(batch.num_proposals, device=length.device)
        width = self._tokens.shape[1]
        answer = self._tokens[batch.rows.unsqueeze(1), index.clamp(max=width - 1)].long()
        key = index * 31 + length  # whether a draft is right depends on where drafting began, too
        is_right = ((key * _MULTIPLIER) % (1 << 32) >> 12) % 1024 < self._threshold
        wrong = (answer + 1) % self._vocab_size
        return torch.where((answer >= 0) & (index < width), torch.where(is_right, answer, wrong), -1)
