"""Verify is sampling: drafts are kept while they equal the tokens that the sampler chose in their place.

Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative decoding", arXiv
2408.07978. The emitted tokens are the sampler's own, so a drafter changes only how many there are.

    drafts:   d0  d1  d2            samples of the request start at sample_starts, one more than real drafts
    sampled:  t0  t1  t2  t3        d0 = t0, d1 = t1, d2 != t2: t0 t1 t2 are emitted, 2 drafts accepted
"""

from dataclasses import dataclass

from torch import Tensor

from outrider.kernels import Kernels, load_kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a step emits for each request."""

    token_ids: Tensor  # [num_rows, k + 1] int64, the first num_tokens hold, the others are 0
    num_tokens: Tensor  # [num_rows] int64, emitted: accepted drafts + 1, at most the num_tokens_left; 0 without samples
    num_accepted: Tensor  # [num_rows] int64, drafts among the emitted tokens
    num_drafts: Tensor  # [num_rows] int64, real drafts that were verified


class Comparison:
    """Which drafts are accepted: those that equal what was sampled in their place."""

    is_exact = True
    tables: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    """What a kernel reads in place of a call; None: it compares."""

    def __call__(self, sampled: Tensor, drafts: Tensor, rows: Tensor | None) -> Tensor:
        """sampled [R, k + 1] int64, drafts [R, k] int64, rows [R] int64 of the request table -> [R, k] bool."""
        return drafts == sampled[:, :-1]

    def emitted(self, sampled: Tensor, drafts: Tensor, is_kept: Tensor) -> Tensor:
        """The tokens [R, k + 1] that stand in the places of accepted drafts and behind them."""
        return sampled


EQUALITY = Comparison()


def verify(
    sampled_ids: Tensor,
    *,
    sample_starts: Tensor,
    num_samples: Tensor,
    drafts: Tensor,
    num_tokens_left: Tensor,
    rows: Tensor | None = None,
    comparison: Comparison = EQUALITY,
    kernels: Kernels | None = None,
) -> Verified:
    """Accept drafts of `num_rows` requests, all on the device.

    sampled_ids    [total samples] int64, tokens of the flat samples
    sample_starts  [num_rows] int64, first sample of each request
    num_samples    [num_rows] int64, 1 + real drafts; 0 for a chunk that is not the last. May be fewer than the
                   samples laid out for the request
    drafts         [num_rows, k] int64, the first num_samples - 1 are real; k = 0 is plain decoding
    num_tokens_left           [num_rows] int64, tokens that may still be emitted
    rows           [num_rows] int64, rows of the request table, for a comparison that reads it
    kernels        None: plain PyTorch

    Emitted token i of a request belongs to sample sample_starts + i.
    """
    token_ids, num_tokens, num_accepted, num_drafts = (kernels or load_kernels(("reference",))).verify(
        sampled_ids,
        sample_starts=sample_starts,
        num_samples=num_samples,
        drafts=drafts,
        num_tokens_left=num_tokens_left,
        rows=rows,
        comparison=comparison,
    )
    return Verified(token_ids=token_ids, num_tokens=num_tokens, num_accepted=num_accepted, num_drafts=num_drafts)
