"""From a plan to the tensors of a step: one copy in, then ids, positions and slots are made on the device.

The host's part is what it knows exactly: which rows, how many tokens each was given, which rows will be sampled
and what their parameters ask for. How many drafts are real, and where a row stands, only the device knows.
"""

from torch import Tensor

from outrider.attention.batch import ForwardBatch
from outrider.core.plan import StepPlan
from outrider.device.layout import WANTS, Layout, Layouts
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels import Kernels
from outrider.sampling.sampler import SampleBatch


class Assembler:
    """Builds the `StepBatch` of a plan."""

    def __init__(
        self, *, kernels: Kernels, staging: Staging, max_rows: int, num_drafts: int, wants_digest: bool
    ) -> None:
        self._kernels = kernels
        self._staging = staging
        self._layouts = Layouts(max_rows)
        self._staged: tuple[Layout | None, dict[str, Tensor]] = (None, {})
        self._num_drafts = num_drafts
        self._wants_digest = wants_digest

    def assemble(self, plan: StepPlan, table: RequestTable) -> StepBatch:
        """Write the plan's admissions and blocks to the table, then make the step's tensors."""
        table.admit(plan.admissions, self._staging)
        table.add_blocks(plan.new_blocks, self._staging)
        layout, put = self.stage(plan)
        rows = put["rows"]
        tokens = self._kernels.assemble(
            table.token_ids,
            table.num_tokens,
            table.num_computed,
            table.max_total,
            table.drafts,
            table.num_drafts,
            table.block_tables,
            rows=rows,
            num_known=put["num_known"],
            draft_bound=put["draft_bound"],
            token_row=put["token_row"],
            token_offset=put["token_offset"],
            block_size=table.block_size,
        )
        drafts = table.drafts[rows, : self._num_drafts]
        sample_rows = rows[put["sample_row"]]
        return StepBatch(
            forward=ForwardBatch(
                token_ids=tokens.token_ids,
                positions=tokens.positions,
                slots=tokens.slots,
                kv_lengths=tokens.kv_lengths,
                block_tables=table.block_tables[rows],
                row_counts=tuple(row.num_tokens for row in plan.rows),
                kv_length_bound=max(row.length_bound for row in plan.rows),
            ),
            rows=rows,
            token_row=put["token_row"],
            row_starts=put["row_starts"],
            num_known=put["num_known"],
            num_drafts=tokens.num_drafts,
            room=tokens.room,
            drafts=drafts,
            sample_index=put["sample_index"],
            sample_starts=put["sample_starts"],
            num_samples=(1 + tokens.num_drafts) * put["does_sample"] * (tokens.room > 0),
            sample=SampleBatch(
                rows=sample_rows,
                offsets=put["sample_offset"],
                lengths=table.num_tokens[sample_rows] + put["sample_offset"],
                drafts=drafts[put["sample_row"]],
                num_logprobs=layout.num_logprobs,
                wants_digest=self._wants_digest,
                **{name: put[name] if layout.arrays[name].size else None for name in WANTS},
            ),
            length_bound=max(row.length_bound for row in plan.rows) + 1,
        )

    def stage(self, plan: StepPlan) -> tuple[Layout, dict[str, Tensor]]:
        """The host's half: the plan's layout, and its arrays on the device. Nothing is copied where the last step
        lay the same."""
        self._layouts.admit(plan.admissions)
        layout = self._layouts.lay_out(plan)
        if layout is not self._staged[0]:
            self._staged = (layout, self._staging.put(layout.arrays))
        return layout, self._staged[1]
