"""The step from top to bottom: identical for prompts and decoding, with and without drafts, on every platform.

Variants are chosen when the parts are created. Nothing here waits for the device.
"""

from dataclasses import dataclass

from outrider.attention.caches.delta_state import StateCache
from outrider.attention.caches.model_caches import ModelCaches
from outrider.core.plan import StepPlan
from outrider.device.assemble import Assembler, Layout
from outrider.device.readback import Packed, add_drafts, pack
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels.interface.sampling import SyntheticAcceptance
from outrider.layers.decoder import CausalLM, Hidden
from outrider.runtime.drafting import Drafting
from outrider.runtime.prompt_scores import score_prompt
from outrider.runtime.state_snapshots import StateSnapshots
from outrider.sampling.sampler import SampleMasks, Sampler
from outrider.speculation.drafter import BaseDrafter


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A step after its forward pass."""

    batch: StepBatch
    hidden: Hidden


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
        synthetic: SyntheticAcceptance | None = None,
        states: StateCache | None = None,
    ) -> None:
        """synthetic: None to accept drafts by equality. states: None for a model whose layers have none."""
        self.model = model
        self.caches = caches
        self.table = table
        self.assembler = assembler
        self.synthetic = synthetic
        self.kernels = model.context.kernels
        self.sampler = Sampler(self.kernels)
        self.drafting = Drafting(drafter, table)
        self.snapshots = StateSnapshots(states, table, self.kernels)

    def admit(self, plan: StepPlan) -> None:
        """Save states, then write the plan's admissions and blocks to the table, and load states."""
        self.snapshots.save(plan.state_saves)
        self.table.admit(plan.admissions, plan.new_blocks)
        self.snapshots.load(plan.admissions)
        self.drafting.admit(plan.admissions)

    def __call__(self, layout: Layout) -> Packed:
        """Run one step; its results are read later."""
        return self.sample(layout, self.forward(layout))

    def forward(self, layout: Layout) -> Forwarded:
        """The first part of a step: the target's layers."""
        batch = self.assembler.build(layout, self.table)
        hidden = self.model(batch.forward, self.caches)
        return Forwarded(batch, hidden)

    def sample(self, layout: Layout, forwarded: Forwarded, masks: SampleMasks | None = None) -> Packed:
        """The second part: choose tokens, verify drafts, commit, draft. masks: for samples of requests with grammars,
        whose next drafts are then among the results."""
        batch, hidden = forwarded.batch, forwarded.hidden
        logits = self.model.logits(hidden.last[batch.sample_index])
        sampled = self.sampler(logits, batch.sample, self.table.sampling, masks=masks)
        verified = self.kernels.verify(
            sampled.token_ids,
            sample_starts=batch.sample_starts,
            num_samples=batch.num_samples,
            drafts=batch.drafts,
            num_tokens_left=batch.num_tokens_left,
            rows=batch.rows,
            synthetic=self.synthetic,
        )
        scores = score_prompt(self.model, hidden, batch.scored) if batch.scored is not None else None
        packed = pack(batch, sampled=sampled, verified=verified, scores=scores)
        self.table.commit(batch, verified)
        self.drafting.draft(batch, hidden, verified)
        return add_drafts(packed, batch, self.table) if masks is not None else packed
