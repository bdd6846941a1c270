"""Verifying drafts: which of them are accepted, and the tokens that a step emits."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels.interface.sampling import Comparison


def verify(
    sampled_ids: Tensor,
    *,
    sample_starts: Tensor,
    num_samples: Tensor,
    drafts: Tensor,
    num_tokens_left: Tensor,
    rows: Tensor | None = None,
    comparison: Comparison | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Drafts are kept while they equal the tokens sampled in their place: `sampling/verifier.py` says what for.

    sampled_ids [num_all_samples] int64, drafts [num_rows, k] int64, the others [num_rows] int64 -> token ids
    [num_rows, k + 1] int64, of which the first num_tokens hold and the others are 0; num_tokens, num_accepted and
    num_drafts, each [num_rows] int64. `comparison`: None for equality.
    """
    num_places = drafts.shape[1] + 1
    places = torch.arange(num_places, device=drafts.device)
    samples = (sample_starts.unsqueeze(1) + places).clamp(max=sampled_ids.shape[0])
    sampled = pad(sampled_ids, (0, 1))[samples]  # [num_rows, k + 1]

    num_drafts = (num_samples - 1).clamp(min=0)
    is_kept = drafts == sampled[:, :-1] if comparison is None else comparison(sampled, drafts, rows)
    is_kept = is_kept & (places[:-1] < num_drafts.unsqueeze(1))
    num_equal = is_kept.to(torch.int64).cumprod(dim=1).sum(dim=1)

    num_tokens = torch.minimum(num_equal + 1, num_tokens_left.clamp(min=0)) * (num_samples > 0)
    emitted = sampled if comparison is None else comparison.emitted(sampled, drafts, is_kept)
    token_ids = torch.where(places < num_tokens.unsqueeze(1), emitted, 0)
    return token_ids, num_tokens, torch.minimum(num_equal, num_tokens), num_drafts
