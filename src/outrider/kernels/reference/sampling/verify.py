"""Verify is sampling: drafts are kept while they equal the tokens that the sampler chose in their place.

Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative decoding", arXiv
2408.07978. The emitted tokens are the sampler's own, so a drafter changes only how many there are.

    drafts:   d0  d1  d2            samples of the request start at sample_starts, one more than real drafts
    sampled:  t0  t1  t2  t3        d0 = t0, d1 = t1, d2 != t2: t0 t1 t2 are emitted, 2 drafts accepted
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from outrider.kernels.interface.sampling import SYNTHETIC_SIZE, SYNTHETIC_STRIDE, SyntheticAcceptance, Verified


def verify(
    sampled_ids: Tensor,
    *,
    sample_starts: Tensor,
    num_samples: Tensor,
    drafts: Tensor,
    num_tokens_left: Tensor,
    rows: Tensor | None = None,
    synthetic: SyntheticAcceptance | None = None,
) -> Verified:
    """Tokens that each request emits; the interface describes the arguments."""
    num_places = drafts.shape[1] + 1
    places = torch.arange(num_places, device=drafts.device)
    samples = (sample_starts.unsqueeze(1) + places).clamp(max=sampled_ids.shape[0])
    sampled = pad(sampled_ids, (0, 1))[samples]  # [R, k + 1]

    num_drafts = (num_samples - 1).clamp(min=0)
    is_kept = drafts == sampled[:, :-1] if synthetic is None else _drawn(synthetic, rows, num_drafts=drafts.shape[1])
    is_kept = is_kept & (places[:-1] < num_drafts.unsqueeze(1))
    num_equal = is_kept.to(torch.int64).cumprod(dim=1).sum(dim=1)

    num_tokens = torch.minimum(num_equal + 1, num_tokens_left.clamp(min=0)) * (num_samples > 0)
    if synthetic is not None:  # an accepted draft is emitted whatever was sampled, so that tokens and KV cache agree
        sampled = torch.cat([torch.where(is_kept, drafts, sampled[:, :-1]), sampled[:, -1:]], dim=1)
    token_ids = torch.where(places < num_tokens.unsqueeze(1), sampled, 0)
    return Verified(token_ids, num_tokens, torch.minimum(num_equal, num_tokens))


def _drawn(synthetic: SyntheticAcceptance, rows: Tensor | None, *, num_drafts: int) -> Tensor:
    """[R, num_drafts] bool: the drafts that the requests' random numbers accept."""
    assert rows is not None, "synthetic acceptance is keyed by the request"
    place = (synthetic.seeds[rows] * SYNTHETIC_STRIDE + synthetic.lengths[rows]) & (SYNTHETIC_SIZE - 1)
    return synthetic.numbers[place].unsqueeze(1) < synthetic.rates[:num_drafts]
