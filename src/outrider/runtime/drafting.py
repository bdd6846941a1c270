"""The drafter's part of a step: rows that start, and drafts for every row's next step.

A drafter changes speed only, so if it fails while the engine serves, drafting stops and all requests continue.
"""

import logging

import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import Verified
from outrider.layers.decoder import Hidden
from outrider.speculation.drafter import BaseDrafter

_log = logging.getLogger(__name__)


class Drafting:
    """Runs the drafter of an engine, if it has one."""

    def __init__(self, drafter: BaseDrafter | None, table: RequestTable) -> None:
        self.drafter = drafter
        self.failure: Exception | None = None
        """The error with which the drafter failed; from then on, steps have no drafts."""
        self.is_serving = False
        """False while the engine is built: a failure is then raised."""
        self._table = table

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Let the drafter prepare rows that start or resume; the table already holds them."""
        if self.drafter is None or self.failure is not None:
            return
        try:
            self.drafter.admit(admissions)
        except Exception as error:
            self._give_up(error)

    def draft(self, batch: StepBatch, hidden: Hidden, verified: Verified) -> None:
        """Put the drafts for each row's next step into the table. Call it after the step was committed."""
        if self.drafter is None:
            return
        drafts = self._propose(self.drafter, batch, hidden, verified)
        self._table.put_drafts(batch, drafts, position_limit=self.drafter.position_limit)

    def _propose(self, drafter: BaseDrafter, batch: StepBatch, hidden: Hidden, verified: Verified) -> Tensor:
        """Drafts [R, at most num_proposals] int64; no column after a failure."""
        if self.failure is None:
            try:
                return drafter.propose(batch, hidden=hidden, verified=verified)
            except Exception as error:
                self._give_up(error)
        return torch.empty((batch.num_rows, 0), dtype=torch.int64, device=batch.rows.device)

    def _give_up(self, error: Exception) -> None:
        if not self.is_serving:
            raise error
        self.failure = error
        _log.warning(
            "the drafter failed and is switched off: %r. Tokens stay the same; restart the engine to draft again.",
            error,
            exc_info=error,
        )
