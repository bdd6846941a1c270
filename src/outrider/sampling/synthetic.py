"""Tables for synthetic acceptance: drafts are accepted at given rates, for benchmarks.

Nothing else of a step changes: the same rows are computed, sampled and committed. Accepted drafts are emitted as they
are, so the tokens are the drafter's and not the model's, and an engine that runs with this is not exact and reports it.

How many drafts of a step are accepted is a pure function of (seed of the request, position): one number in [0, 1) is
looked up in a table, and draft i is accepted where the number is below rate i. The table is Philox-4x32-10 with its
place as counter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.kernels.interface.sampling import SYNTHETIC_SIZE, SyntheticAcceptance
from outrider.kernels.philox import philox


def synthetic_acceptance(rates: Sequence[float], *, seeds: Tensor, lengths: Tensor) -> SyntheticAcceptance:
    """Tables that accept draft i, and all before it, in a fraction `rates[i]` of steps.

    rates: one for each draft, non-increasing. seeds, lengths: [max_rows] int64, columns of the sampling and the request
    table: the seed, and the number of tokens before the first that the step produces. They are read when a step runs.
    """
    return SyntheticAcceptance(
        numbers=_numbers().to(seeds.device),
        rates=torch.tensor(rates, dtype=torch.float32, device=seeds.device),
        seeds=seeds,
        lengths=lengths,
    )


def _numbers() -> Tensor:
    """[SYNTHETIC_SIZE] fp32 in [0, 1), on the CPU."""
    place = torch.arange(SYNTHETIC_SIZE)
    zero = torch.zeros_like(place)
    word = philox((place, zero, zero, zero), (zero, zero))[0]
    return (word >> 8).to(torch.float32) * 2.0**-24
