"""The step, top to bottom: the same for prompts and decoding, with and without drafts, on every platform.

What differs was chosen when its parts were made. Nothing here waits for the device.
"""

import logging

import torch
from torch import Tensor

from outrider.attention.caches.delta_state import StateCache
from outrider.attention.caches.model_caches import ModelCaches
from outrider.core.plan import RowAdmission, StateSave, StepPlan
from outrider.device.assemble import Assembler, Layout
from outrider.device.readback import Packed, add_drafts, pack
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.layers.decoder import CausalLM, Hidden
from outrider.runtime.prompt_scores import score_prompt
from outrider.sampling.sampler import Sampler
from outrider.sampling.verifier import Comparison, Verified, verify
from outrider.speculation.drafter import BaseDrafter

_log = logging.getLogger(__name__)


class Step:
    """Runs steps of one model. It reads the layout and the table only, so it can be captured and replayed."""

    def __init__(
        self,
        *,
        model: CausalLM,
        caches: ModelCaches,
        table: RequestTable,
        assembler: Assembler,
        drafter: BaseDrafter | None,
        comparison: Comparison,
        states: StateCache | None = None,
    ) -> None:
        """`states`: of a model whose layers have them."""
        self.model = model
        self.caches = caches
        self.table = table
        self.assembler = assembler
        self.drafter = drafter
        self.drafter_failure: Exception | None = None
        self.is_serving = False
        """False while the engine is built: what fails then is an error."""
        self.comparison = comparison
        self.states = states
        self.kernels = model.context.kernels
        self.sampler = Sampler(self.kernels)

    def admit(self, plan: StepPlan) -> None:
        """Save states, then write the plan's admissions and blocks to the table, and load states."""
        self._save_states(plan.state_saves)
        self.table.admit(plan.admissions)
        self._load_states(plan.admissions)
        self.table.add_blocks(plan.new_blocks)
        if self.drafter is not None and self.drafter_failure is None:
            try:
                self.drafter.admit(plan.admissions)
            except Exception as error:
                self._give_up_drafting(error)

    def _propose(self, batch: StepBatch, hidden: Hidden, verified: Verified) -> Tensor:
        """The drafter's drafts, or none for anybody: it can change speed only, so its failure ends no request."""
        assert self.drafter is not None
        if self.drafter_failure is None:
            try:
                return self.drafter.propose(batch, hidden=hidden, verified=verified)
            except Exception as error:
                self._give_up_drafting(error)
        return torch.empty((batch.num_rows, 0), dtype=torch.int64, device=batch.rows.device)

    def _give_up_drafting(self, error: Exception) -> None:
        if not self.is_serving:
            raise error
        self.drafter_failure = error
        _log.warning(
            "the drafter failed and is switched off: %r. Tokens stay the same; restart the engine to draft again.",
            error,
            exc_info=error,
        )

    def _save_states(self, saves: tuple[StateSave, ...]) -> None:
        if self.states is None or not saves:
            return
        saves = tuple({save.slot: save for save in saves}.values())  # of a slot that is named twice the last counts
        put = self.table.put(
            {
                "rows": [save.row for save in saves],
                "slots": [save.slot for save in saves],
                "lengths": [save.length for save in saves],
            }
        )
        self.states.save(self.kernels, sources=self.table.state_lengths[put["rows"]], **put)

    def _load_states(self, admissions: tuple[RowAdmission, ...]) -> None:
        started = [entry for entry in admissions if entry.state_slot >= 0]
        if self.states is None or not started:
            return
        put = self.table.put(
            {
                "rows": [entry.row for entry in started],
                "slots": [entry.state_slot for entry in started],
                "lengths": [entry.num_computed_tokens for entry in started],
            }
        )
        self.states.load(self.kernels, **put)

    def __call__(self, layout: Layout) -> Packed:
        """Run one step; its results are read later."""
        batch = self.assembler.build(layout, self.table)
        hidden = self.model(batch.forward, self.caches)
        logits = self.model.logits(hidden.last[batch.sample_index])
        sampled = self.sampler(logits, batch.sample, self.table.sampling)
        verified = verify(
            sampled.token_ids,
            sample_starts=batch.sample_starts,
            num_samples=batch.num_samples,
            drafts=batch.drafts,
            num_tokens_left=batch.num_tokens_left,
            rows=batch.rows,
            comparison=self.comparison,
            kernels=self.kernels,
        )
        scores = score_prompt(self.model, hidden, batch.scored) if batch.scored is not None else None
        packed = pack(batch, sampled=sampled, verified=verified, scores=scores)
        self.table.commit(batch, verified)
        if self.drafter is not None:
            drafts = self._propose(batch, hidden, verified)
            self.table.put_drafts(batch, drafts, position_limit=self.drafter.position_limit)
        return add_drafts(packed, batch, self.table) if layout.has_masks else packed
