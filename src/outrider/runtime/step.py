"""The step, top to bottom: the same for prompts and decoding, with and without drafts, on every platform.

What differs was chosen when its parts were made. Nothing here waits for the device.
"""

from outrider.attention.kv import KVCache
from outrider.core.plan import StepPlan
from outrider.device.assemble import Assembler
from outrider.device.readback import Handle, Readback
from outrider.device.table import RequestTable
from outrider.layers.decoder import CausalLM
from outrider.runtime.prompt_scores import score_prompt
from outrider.sampling.sampler import Sampler
from outrider.sampling.verifier import verify
from outrider.speculation.drafter import BaseDrafter


class Step:
    """Runs plans on one model."""

    def __init__(
        self,
        *,
        model: CausalLM,
        caches: KVCache,
        table: RequestTable,
        assembler: Assembler,
        drafter: BaseDrafter | None,
    ) -> None:
        self.model = model
        self.caches = caches
        self.table = table
        self.assembler = assembler
        self.drafter = drafter
        self.sampler = Sampler()
        self.readback = Readback()

    def __call__(self, plan: StepPlan) -> Handle:
        """Launch one step; its results are read later through the handle."""
        batch = self.assembler.assemble(plan, self.table)
        if self.drafter is not None:
            self.drafter.admit(plan.admissions)
        hidden = self.model(batch.forward, self.caches)
        logits = self.model.logits(hidden.last[batch.sample_index])
        sampled = self.sampler(logits, batch.sample, self.table.sampling)
        choice = verify(
            sampled.token_ids,
            sample_starts=batch.sample_starts,
            num_samples=batch.num_samples,
            drafts=batch.drafts,
            room=batch.room,
        )
        scores = score_prompt(self.model, hidden, batch.scored) if batch.scored is not None else None
        handle = self.readback.begin(plan, batch, sampled=sampled, choice=choice, scores=scores)
        self.table.commit(batch, choice)
        if self.drafter is not None:
            drafts = self.drafter.propose(batch, hidden=hidden, choice=choice)
            self.table.put_drafts(batch, drafts, position_limit=self.drafter.position_limit)
        return self.readback.add_drafts(handle, batch, self.table) if plan.wants_drafts else handle
