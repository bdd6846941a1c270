"""From a plan to the tensors of a step: one copy in, then ids, positions and slots are made on the device.

The host's part is what it knows exactly: which rows, how many tokens each was given, which rows will be sampled
and what their parameters ask for. How many drafts are real, and where a row stands, only the device knows.
"""

import numpy as np

from outrider.attention.batch import ForwardBatch
from outrider.core.plan import RowPlan, StepPlan
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.device.table import RequestTable
from outrider.kernels import Kernels
from outrider.sampling.sampler import SampleBatch


_WANTS = ("random_index", "penalty_index", "bias_index", "min_tokens_index", "truncation_index")
"""Lists of samples that need a part of the sampler."""


class Assembler:
    """Builds the `StepBatch` of a plan."""

    def __init__(self, *, kernels: Kernels, staging: Staging, num_drafts: int, wants_digest: bool) -> None:
        self._kernels = kernels
        self._staging = staging
        self._num_drafts = num_drafts
        self._wants_digest = wants_digest

    def assemble(self, plan: StepPlan, table: RequestTable) -> StepBatch:
        """Write the plan's admissions and blocks to the table, then make the step's tensors."""
        table.admit(plan.admissions, self._staging)
        table.add_blocks(plan.new_blocks, self._staging)
        laid_out = lay_out(plan)
        put = self._staging.put(laid_out)
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
        logprobs = [row.params.logprobs for row in plan.rows if row.params.logprobs is not None]
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
                num_logprobs=max(logprobs) if logprobs else None,
                wants_digest=self._wants_digest,
                **{name: put[name] if laid_out[name].size else None for name in _WANTS},
            ),
            length_bound=max(row.length_bound for row in plan.rows) + 1,
        )


def lay_out(plan: StepPlan) -> dict[str, np.ndarray]:
    """The host's half of `assemble`: where rows, tokens and samples of a step lie; int64, no tensor."""
    counts = np.array([row.num_tokens for row in plan.rows])
    samples = np.array([row.num_samples for row in plan.rows])
    row_starts = np.cumsum(counts) - counts
    sample_starts = np.cumsum(samples) - samples
    sample_row = np.repeat(np.arange(len(samples)), samples)
    sample_offset = np.arange(samples.sum()) - sample_starts[sample_row]
    num_known = np.array([row.num_tokens - row.num_drafts for row in plan.rows])
    token_row = np.repeat(np.arange(len(counts)), counts)
    return {
        "rows": np.array([row.row for row in plan.rows]),
        "num_known": num_known,
        "draft_bound": np.array([row.num_drafts for row in plan.rows]),
        "does_sample": np.array([row.does_sample for row in plan.rows]),
        "row_starts": row_starts,
        "sample_starts": sample_starts,
        "token_row": token_row,
        "token_offset": np.arange(counts.sum()) - row_starts[token_row],
        "sample_row": sample_row,
        "sample_offset": sample_offset,
        "sample_index": (row_starts + num_known - 1)[sample_row] + sample_offset,
        **{name: np.flatnonzero(wants[sample_row]) for name, wants in _wants(plan.rows).items()},
    }


def _wants(rows: tuple[RowPlan, ...]) -> dict[str, np.ndarray]:
    """Which rows need which part of the sampler: host facts that choose work, never a result."""
    params = [row.params for row in rows]
    return {
        "random_index": np.array([not entry.is_greedy for entry in params]),
        "penalty_index": np.array([entry.has_penalties for entry in params]),
        "bias_index": np.array([bool(entry.logit_bias) for entry in params]),
        "min_tokens_index": np.array([entry.min_tokens > 0 for entry in params]),
        "truncation_index": np.array([entry.has_truncation for entry in params]),
    }
