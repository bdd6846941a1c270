"""Makes the tensors of a step from its plan: one copy in, then the device computes ids, positions and slots.

The host's part (`Layout`) holds what the host knows exactly: which rows run, how many tokens each was given, which rows
will be sampled and what their parameters need. Only the device knows how many drafts are real and how long a row is.
If all rows decode, the layout depends only on their number, except for the row indices themselves, so one layout can
serve every such step. A layout padded to fixed sizes (`padded_layout.py`) serves every step that fits them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from outrider.attention.batch import ForwardBatch, GroupBatch
from outrider.core.plan import StepPlan
from outrider.device.padded_layout import PaddedSizes
from outrider.device.pooled_tokens import PooledTokens, lay_out_pooling
from outrider.device.staging import Staging
from outrider.device.step_batch import ScoredTokens, StepBatch
from outrider.device.table import RequestTable
from outrider.kernels import Kernels
from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.interface.state import StateRows
from outrider.kernels.interface.step import Assembled
from outrider.sampling.sampler import SampleBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layout of the rows of a step in its flat batch; names as in `StepBatch`."""

    row_counts: tuple[int, ...] | DeviceCounts
    samples_of_rows: tuple[int, ...]
    length_bound: int  # all tokens are before this position
    num_drafts: int  # largest number of drafts per row
    num_proposals: int  # drafts to make for the next step
    num_logprobs: int | None
    num_given: int
    numbers: Mapping[str, Tensor]
    """rows, num_known, draft_bound, does_sample, row_starts, sample_starts [R]; token_row, token_offset [T];
    sample_row, sample_offset, sample_index [S]; where prompt tokens are scored, scored_row, scored_index [P]."""
    lists: Mapping[str, Tensor | None]
    num_prompt_logprobs: int = 0
    pooled: PooledTokens | None = None  # None: the step generates


class Assembler:
    """Builds the `StepBatch` of a plan."""

    def __init__(
        self,
        *,
        kernels: Kernels,
        staging: Staging,
        num_drafts: int,
        wants_digest: bool,
        most_open: int | None = None,
    ) -> None:
        """`most_open`: `StateCache.most_open` of a model whose layers have states."""
        self._kernels = kernels
        self._staging = staging
        self._num_drafts = num_drafts
        self._wants_digest = wants_digest
        self._most_open = most_open
        self._last: Layout | None = None
        self._last_key: object = None

    def lay_out(self, plan: StepPlan, table: RequestTable) -> Layout:
        """The layout of one plan, in one copy; reuses the tensors of the last layout if nothing in it has changed."""
        columns = [(row.row, row.num_tokens, row.num_drafts, row.does_sample, row.num_scored) for row in plan.rows]
        rows, counts, draft_bound, does_sample, scored = np.array(columns, dtype=np.int64).T
        needs, num_given = table.sampling.needs[rows], table.sampling.num_given[rows]
        num_logprobs = table.sampling.num_logprobs[rows]
        length_bound = max([row.length_bound for row in plan.rows])
        key = (columns, needs.tobytes(), num_given.tobytes(), num_logprobs.tobytes())
        is_pooling = plan.rows[0].pooled is not None  # all rows of an engine pool, or none
        brings_tensors = is_pooling or bool(scored.any())  # used in this step only
        if self._last is not None and key == self._last_key and not brings_tensors:
            return replace(self._last, length_bound=length_bound, num_proposals=plan.num_proposals)
        samples = (1 + draft_bound) * does_sample
        numbers = _numbers(rows, counts=counts, samples=samples, draft_bound=draft_bound)
        needs = needs[numbers["sample_row"]]
        lists = {name: np.flatnonzero(needs & bit) for name, bit in table.sampling.bits.items()}
        if scored.any():
            first = numbers["row_starts"] + np.array([row.first_scored for row in plan.rows])
            numbers["scored_row"] = scored_row = np.repeat(np.arange(len(scored)), scored)
            offset = np.arange(scored.sum()) - (np.cumsum(scored) - scored)[scored_row]
            numbers["scored_index"] = first[scored_row] + offset
        put = self._staging.put({**numbers, **{f"list {name}": index for name, index in lists.items()}})
        self._last_key = None if brings_tensors else key
        most_logprobs = int(num_logprobs.max())
        self._last = Layout(
            row_counts=tuple([row.num_tokens for row in plan.rows]),
            samples_of_rows=tuple([row.num_samples for row in plan.rows]),
            length_bound=length_bound,
            num_drafts=self._num_drafts,
            num_proposals=plan.num_proposals,
            num_logprobs=None if most_logprobs < 0 else most_logprobs,
            num_given=int(num_given.max()),
            numbers={name: put[name] for name in numbers},
            lists={name: put[f"list {name}"] if index.size else None for name, index in lists.items()},
            num_prompt_logprobs=max(row.params.prompt_logprobs or 0 for row in plan.rows),
            pooled=lay_out_pooling(plan, self._staging) if is_pooling else None,
        )
        return self._last

    def lay_out_decoding(
        self,
        rows: Tensor,
        draft_bound: Tensor,
        *,
        length_bound: int,
        num_drafts: int,
        num_proposals: int,
        needs: Sequence[str],
        num_logprobs: int | None,
        num_given: int,
    ) -> Layout:
        """The layout of any step of R decode rows, with one known token and up to `num_drafts` drafts each. The step
        reads `rows` and `draft_bound` ([R] int64) when it runs. Every sample is in the lists of `needs`."""
        num_rows, width = rows.shape[0], 1 + num_drafts
        counts = np.full(num_rows, width)
        numbers = _numbers(np.zeros(num_rows), counts=counts, samples=counts, draft_bound=np.full(num_rows, num_drafts))
        put = self._staging.put({**numbers, "all": np.arange(num_rows * width)})
        everyone = put.pop("all")
        return Layout(
            row_counts=(width,) * num_rows,
            samples_of_rows=(width,) * num_rows,
            length_bound=length_bound,
            num_drafts=num_drafts,
            num_proposals=num_proposals,
            num_logprobs=num_logprobs,
            num_given=num_given,
            numbers={**put, "rows": rows, "draft_bound": draft_bound},
            lists=dict.fromkeys(needs, everyone),
        )

    def lay_out_padded(
        self,
        buffer: Tensor,
        sizes: PaddedSizes,
        *,
        length_bound: int,
        num_drafts: int,
        needs: Sequence[str],
        num_logprobs: int | None,
        num_given: int,
    ) -> Layout:
        """The layout of any step that fits `sizes`. The step reads `buffer` ([sizes.num_integers] int64) when it runs.
        Every sample is in the lists of `needs`; each row makes `num_drafts` drafts."""
        numbers = dict(sizes.split(buffer))
        counts = DeviceCounts(numbers.pop("row_counts"), numbers["row_starts"], decode_width=1 + num_drafts)
        everyone = self._staging.put({"all": np.arange(sizes.num_samples)})["all"]
        return Layout(
            row_counts=counts,
            samples_of_rows=(),
            length_bound=length_bound,
            num_drafts=num_drafts,
            num_proposals=num_drafts,
            num_logprobs=num_logprobs,
            num_given=num_given,
            numbers=numbers,
            lists=dict.fromkeys(needs, everyone),
        )

    def build(self, layout: Layout, table: RequestTable) -> StepBatch:
        """The step's tensors, from the layout and the current state of the table's rows."""
        put = layout.numbers
        rows = put["rows"]
        tokens, *others = (self._assemble(layout, table, group) for group in range(len(table.groups)))
        drafts = table.drafts[rows, : layout.num_drafts]
        sample_rows = rows[put["sample_row"]]
        return StepBatch(
            forward=ForwardBatch(
                token_ids=tokens.token_ids,
                positions=tokens.positions,
                kv_lengths=tokens.kv_lengths,
                groups={
                    group: GroupBatch(table.block_tables[group][rows], found.slots)
                    for group, found in enumerate((tokens, *others))
                },
                row_counts=layout.row_counts,
                kv_length_bound=layout.length_bound,
                states=self._states(layout, table, tokens),
                token_types=layout.pooled.token_types if layout.pooled is not None else None,
            ),
            rows=rows,
            token_row=put["token_row"],
            row_starts=put["row_starts"],
            num_known=put["num_known"],
            num_drafts=tokens.num_drafts,
            num_tokens_left=tokens.num_tokens_left,
            drafts=drafts,
            sample_index=put["sample_index"],
            sample_starts=put["sample_starts"],
            num_samples=(1 + tokens.num_drafts) * put["does_sample"] * (tokens.num_tokens_left > 0),
            sample=SampleBatch(
                rows=sample_rows,
                offsets=put["sample_offset"],
                lengths=table.num_tokens[sample_rows] + put["sample_offset"],
                drafts=drafts[put["sample_row"]],
                num_logprobs=layout.num_logprobs,
                wants_digest=self._wants_digest,
                token_ids=table.token_ids,
                num_given=layout.num_given,
                lists=layout.lists,
            ),
            samples_of_rows=layout.samples_of_rows,
            length_bound=layout.length_bound + 1,
            num_proposals=layout.num_proposals,
            scored=_scored_tokens(layout, table, tokens.positions),
        )

    def _assemble(self, layout: Layout, table: RequestTable, group: int) -> Assembled:
        """Inputs of the forward pass, with the slots of one group; everything else is the same for all groups."""
        put = layout.numbers
        return self._kernels.assemble(
            table.token_ids,
            table.num_tokens,
            table.num_computed,
            table.max_total,
            table.drafts,
            table.num_drafts,
            table.block_tables[group],
            rows=put["rows"],
            num_known=put["num_known"],
            draft_bound=put["draft_bound"],
            token_row=put["token_row"],
            token_offset=put["token_offset"],
            block_size=table.groups[group].block_size,
        )

    def _states(self, layout: Layout, table: RequestTable, tokens: Assembled) -> StateRows | None:
        if self._most_open is None:
            return None
        put = layout.numbers
        starts, counts, sources, targets, known = self._kernels.state_rows(
            table.num_computed,
            table.state_lengths,
            table.state_known,
            rows=put["rows"],
            num_known=put["num_known"],
            num_drafts=tokens.num_drafts,
            num_tokens_left=tokens.num_tokens_left,
        )
        return StateRows(
            rows=put["rows"],
            starts=starts,
            counts=counts,
            sources=sources,
            targets=targets,
            known=known,
            row_starts=put["row_starts"],
            token_row=put["token_row"],
            row_counts=layout.row_counts,
            most_open=self._most_open,
        )


def _scored_tokens(layout: Layout, table: RequestTable, positions: Tensor) -> ScoredTokens | None:
    if "scored_index" not in layout.numbers:
        return None
    index, row = layout.numbers["scored_index"], layout.numbers["scored_row"]
    token_ids = table.token_ids[layout.numbers["rows"][row], positions[index] + 1]
    return ScoredTokens(index=index, token_ids=token_ids.to(torch.int64), num_logprobs=layout.num_prompt_logprobs)


def _numbers(
    rows: np.ndarray, *, counts: np.ndarray, samples: np.ndarray, draft_bound: np.ndarray
) -> dict[str, np.ndarray]:
    row_starts = np.cumsum(counts) - counts
    sample_starts = np.cumsum(samples) - samples
    token_row = np.repeat(np.arange(len(counts)), counts)
    sample_row = np.repeat(np.arange(len(samples)), samples)
    sample_offset = np.arange(samples.sum()) - sample_starts[sample_row]
    num_known = counts - draft_bound
    return {
        "rows": rows,
        "num_known": num_known,
        "draft_bound": draft_bound,
        "does_sample": (samples > 0).astype(np.int64),
        "row_starts": row_starts,
        "sample_starts": sample_starts,
        "token_row": token_row,
        "token_offset": np.arange(counts.sum()) - row_starts[token_row],
        "sample_row": sample_row,
        "sample_offset": sample_offset,
        "sample_index": (row_starts + num_known - 1)[sample_row] + sample_offset,
    }
