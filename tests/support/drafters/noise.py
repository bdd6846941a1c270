"""A test drafter that proposes random ids, in and out of range, and the argmax of NaN logits.

Tests use it to prove that a drafter can change speed only. It is deliberately not row-invariant.
"""

import torch
from torch import Tensor

from outrider.device.step_batch import StepBatch
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.drafter import BaseDrafter, DrafterContext


class Drafter(BaseDrafter):
    """Proposes random ids; one row in four gets the argmax of NaN logits."""

    is_row_invariant = False
    is_capturable = False  # its random generator is not part of the step

    def __init__(self, context: DrafterContext) -> None:
        super().__init__(context)
        self._vocab_size = context.target_config.vocab_size
        self._generator = torch.Generator(device=context.device).manual_seed(context.engine.seed)

    def propose(self, batch: StepBatch, *, hidden: Hidden, verified: Verified) -> Tensor:
        shape = (batch.num_rows, batch.num_proposals)
        low, high = -3, self._vocab_size + self._vocab_size // 4 + 3
        device = batch.rows.device
        ids = torch.randint(low, high, shape, generator=self._generator, device=device)
        from_nan = torch.full((*shape, 8), float("nan"), device=device).argmax(dim=-1)
        is_nan = torch.randint(0, 4, (batch.num_rows, 1), generator=self._generator, device=device) == 0
        return torch.where(is_nan, from_nan, ids)
