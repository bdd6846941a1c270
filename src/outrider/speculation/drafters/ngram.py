"""Prompt lookup: the longest recent suffix that occurred before is assumed to go on as it did then.

Reads the token table on the device; has no weights and no state. Source: prompt lookup decoding (Saxena, 2023).
"""

import torch
from torch import Tensor

from outrider.device.step_batch import StepBatch
from outrider.layers.decoder import Hidden
from outrider.sampling.verifier import Verified
from outrider.speculation.drafter import BaseDrafter, DrafterContext


class Drafter(BaseDrafter):
    """Drafts from the request's own tokens, for suffixes of prompt_lookup_max down to prompt_lookup_min tokens."""

    def __init__(self, context: DrafterContext) -> None:
        super().__init__(context)
        self.refuse_options(context.config)
        self._sizes = range(context.config.prompt_lookup_max, context.config.prompt_lookup_min - 1, -1)

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        if batch.num_proposals == 0:
            return batch.rows.new_empty(batch.num_rows, 0)
        width = min(batch.length_bound + self.num_drafts, self.table.token_ids.shape[1])
        tokens = self.table.token_ids[batch.rows, :width].long()
        return lookup(tokens, self.table.num_tokens[batch.rows], sizes=self._sizes, num_drafts=batch.num_proposals)


def lookup(tokens: Tensor, lengths: Tensor, *, sizes: range, num_drafts: int) -> Tensor:
    """Continuations [R, num_drafts] of the suffix of tokens [R, L]; -1 from the first place without one.

    Longest size first; among equal matches the latest that has num_drafts tokens behind it, else the latest.
    """
    width = tokens.shape[1]
    place = torch.arange(width, device=tokens.device)
    start = torch.full_like(lengths, -1)
    for size in sizes:
        ends = lengths.unsqueeze(1) - size  # suffix starts here
        matches = (place < ends) & (ends > 0)
        for offset in range(size):
            wanted = tokens.gather(1, (ends + offset).clamp(0, width - 1))
            shifted = torch.roll(tokens, -offset, dims=1)  # what rolls round lies behind `ends`: not matched
            matches = matches & (shifted == wanted)
        is_full = matches & (place + size + num_drafts <= lengths.unsqueeze(1))
        score = torch.where(matches, place + size + torch.where(is_full, width, 0), -1).amax(dim=1)
        start = torch.where(start < 0, torch.where(score > width, score - width, score), start)
    index = start.unsqueeze(1) + torch.arange(num_drafts, device=tokens.device)
    is_known = (start.unsqueeze(1) >= 0) & (index < lengths.unsqueeze(1))
    return torch.where(is_known, tokens.gather(1, index.clamp(0, width - 1)), -1)
