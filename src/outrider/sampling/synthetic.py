"""Acceptance at rates that were asked for, for benchmarks: it stands in for the comparison of drafts and samples.

Nothing else of a step changes: the same rows are computed, sampled and committed. An accepted draft is emitted as it
stands, so that tokens and KV cache agree; the tokens are then the drafter's and not the model's, and an engine that
runs with this is not exact and says so.

How many drafts of a step are accepted is a pure function of (seed of the request, position): one number in [0, 1) is
looked up in a table, and draft i is accepted where the number is below rate i. The table is Philox-4x32-10 with its
place as counter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.kernels.interface.sampling import SYNTHETIC_SIZE, SYNTHETIC_STRIDE
from outrider.kernels.philox import philox
from outrider.sampling.verifier import Comparison


class SyntheticAcceptance(Comparison):
    """Accepts draft i, and all before it, in a share `rates[i]` of steps."""

    is_exact = False

    def __init__(self, rates: Sequence[float], *, seeds: Tensor, lengths: Tensor) -> None:
        """rates: one for each draft, non-increasing. seeds, lengths: [max_rows] int64, columns of the request table:
        the seed, and the tokens before the one that the step produces first; read when a step runs."""
        self._rates = torch.tensor(rates, dtype=torch.float32, device=seeds.device)
        self._seeds = seeds
        self._lengths = lengths
        self._numbers = _numbers().to(seeds.device)
        self.tables = (self._numbers, self._rates, self._seeds, self._lengths)

    def __call__(self, sampled: Tensor, drafts: Tensor, rows: Tensor | None) -> Tensor:
        assert rows is not None, "synthetic acceptance is keyed by the request"
        place = (self._seeds[rows] * SYNTHETIC_STRIDE + self._lengths[rows]) & (SYNTHETIC_SIZE - 1)
        return self._numbers[place].unsqueeze(1) < self._rates[: drafts.shape[1]]

    def emitted(self, sampled: Tensor, drafts: Tensor, is_kept: Tensor) -> Tensor:
        return torch.cat([torch.where(is_kept, drafts, sampled[:, :-1]), sampled[:, -1:]], dim=1)


def _numbers() -> Tensor:
    """[2¹⁶] fp32 in [0, 1), on the CPU."""
    place = torch.arange(SYNTHETIC_SIZE)
    zero = torch.zeros_like(place)
    word = philox((place, zero, zero, zero), (zero, zero))[0]
    return (word >> 8).to(torch.float32) * 2.0**-24
