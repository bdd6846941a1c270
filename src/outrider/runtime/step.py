"""The step, top to bottom: the same for prompts and decoding, with and without drafts, on every platform.

What differs was chosen when its parts were made. Nothing here waits for the device.
"""

from collections.abc import Sequence

from outrider.core.plan import StepPlan
from outrider.device.assemble import Assembler, Layout
from outrider.device.readback import Packed, add_drafts, pack
from outrider.device.table import RequestTable
from outrider.layers.decoder import CausalLM, LayerCache
from outrider.runtime.prompt_scores import score_prompt
from outrider.sampling.sampler import Sampler
from outrider.sampling.verifier import Comparison, verify
from outrider.speculation.drafter import BaseDrafter


class Step:
    """Runs steps of one model. It reads the layout and the table only, so it can be captured and replayed."""

    def __init__(
        self,
        *,
        model: CausalLM,
        caches: Sequence[LayerCache],
        table: RequestTable,
        assembler: Assembler,
        drafter: BaseDrafter | None,
        comparison: Comparison,
    ) -> None:
        self.model = model
        self.caches = caches
        self.table = table
        self.assembler = assembler
        self.drafter = drafter
        self.comparison = comparison
        self.kernels = model.context.kernels
        self.sampler = Sampler(self.kernels)

    def admit(self, plan: StepPlan) -> None:
        """Write the plan's admissions and blocks to the table."""
        self.table.admit(plan.admissions)
        self.table.add_blocks(plan.new_blocks)
        if self.drafter is not None:
            self.drafter.admit(plan.admissions)

    def __call__(self, layout: Layout) -> Packed:
        """Run one step; its results are read later."""
        batch = self.assembler.build(layout, self.table)
        hidden = self.model(batch.forward, self.caches)
        logits = self.model.logits(hidden.last[batch.sample_index])
        sampled = self.sampler(logits, batch.sample, self.table.sampling)
        choice = verify(
            sampled.token_ids,
            sample_starts=batch.sample_starts,
            num_samples=batch.num_samples,
            drafts=batch.drafts,
            room=batch.room,
            rows=batch.rows,
            comparison=self.comparison,
            kernels=self.kernels,
        )
        scores = score_prompt(self.model, hidden, batch.scored) if batch.scored is not None else None
        packed = pack(batch, sampled=sampled, choice=choice, scores=scores)
        self.table.commit(batch, choice)
        if self.drafter is not None:
            drafts = self.drafter.propose(batch, hidden=hidden, choice=choice)
            self.table.put_drafts(batch, drafts, position_limit=self.drafter.position_limit)
        return add_drafts(packed, batch, self.table) if layout.has_masks else packed
