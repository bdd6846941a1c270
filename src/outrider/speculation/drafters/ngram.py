"""Prompt lookup: finds where the longest recent suffix occurred before, and drafts the tokens that followed it there.

It reads the token table on the device and has no weights and no state. Source: prompt lookup decoding (Saxena, 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.core.errors import ConfigError
from outrider.core.option_checks import check_integer
from outrider.device.step_batch import StepBatch
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.drafter import BaseDrafter, DrafterContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of method "ngram"."""

    prompt_lookup_min: int = 2
    """Number of tokens in the shortest suffix that is looked up: 1 to 64."""
    prompt_lookup_max: int = 4
    """Number of tokens in the longest suffix that is looked up: 1 to 64."""

    def __post_init__(self) -> None:
        for name, remedy in (("prompt_lookup_min", "2 is the default."), ("prompt_lookup_max", "4 is the default.")):
            check_integer(f"speculative_config[{name!r}]", getattr(self, name), low=1, high=64, remedy=remedy)
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ConfigError(
                f"prompt_lookup_min={self.prompt_lookup_min} is above prompt_lookup_max={self.prompt_lookup_max}."
                " Lower prompt_lookup_min."
            )


class Drafter(BaseDrafter):
    """Drafts from the request's own tokens, for suffixes of prompt_lookup_max down to prompt_lookup_min tokens."""

    def __init__(self, context: DrafterContext) -> None:
        super().__init__(context)
        options: Options = context.options
        if context.config.quantization is not None:
            raise ConfigError(
                f"speculative_config['quantization']={context.config.quantization!r} has no effect: method 'ngram' has"
                " no weights. Leave it unset."
            )
        self._sizes = range(options.prompt_lookup_max, options.prompt_lookup_min - 1, -1)

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        if batch.num_proposals == 0:
            return batch.rows.new_empty(batch.num_rows, 0)
        width = min(batch.length_bound + self.num_drafts, self.table.token_ids.shape[1])
        tokens = self.table.token_ids[batch.rows, :width].long()
        return lookup(tokens, self.table.num_tokens[batch.rows], sizes=self._sizes, num_drafts=batch.num_proposals)


def lookup(tokens: Tensor, lengths: Tensor, *, sizes: range, num_drafts: int) -> Tensor:
    """Continuations [R, num_drafts] of the suffix of tokens [R, L]; -1 from the first place without one.

    Longest size first; among equal matches the latest that num_drafts tokens follow, else the latest.
    """
    width = tokens.shape[1]
    place = torch.arange(width, device=tokens.device)
    start = torch.full_like(lengths, -1)
    for size in sizes:
        ends = lengths.unsqueeze(1) - size  # suffix starts here
        matches = (place < ends) & (ends > 0)
        for offset in range(size):
            wanted = tokens.gather(1, (ends + offset).clamp(0, width - 1))
            shifted = torch.roll(tokens, -offset, dims=1)  # tokens that roll around lie after `ends`: not matched
            matches = matches & (shifted == wanted)
        is_full = matches & (place + size + num_drafts <= lengths.unsqueeze(1))
        score = torch.where(matches, place + size + torch.where(is_full, width, 0), -1).amax(dim=1)
        start = torch.where(start < 0, torch.where(score > width, score - width, score), start)
    index = start.unsqueeze(1) + torch.arange(num_drafts, device=tokens.device)
    is_known = (start.unsqueeze(1) >= 0) & (index < lengths.unsqueeze(1))
    return torch.where(is_known, tokens.gather(1, index.clamp(0, width - 1)), -1)
