"""The request table: one row per request for its lifetime, the only place on the device with the request's state.

Batch order is an index list made for each step (`rows`); nothing is keyed by the position in a batch. Only `admit`,
`commit` and `put_drafts` change state. Independent of models and drafters.
"""

from collections.abc import Mapping, Sequence

import torch

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import NewBlocks, RowAdmission
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.kernels import Kernels
from outrider.kernels.interface.sampling import Verified
from outrider.sampling.params import SamplingTable


class RequestTable:
    """State of up to `max_rows` requests of up to `max_model_len` tokens, `num_drafts` drafts each.

    One more row, `padding_row`, belongs to no request: it has no tokens left, so a step emits nothing for it.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_model_len: int,
        num_drafts: int,
        groups: Sequence[BlockGroup],
        vocab_size: int,
        kernels: Kernels,
        staging: Staging,
        device: torch.device,
    ) -> None:
        self.padding_row = max_rows
        max_rows += 1

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.max_model_len = max_model_len
        self.num_drafts_max = num_drafts
        self.vocab_size = vocab_size
        self.groups = tuple(groups)
        self.token_ids = zeros(max_rows, max_model_len + num_drafts + 1, dtype=torch.int32)
        self.num_tokens = zeros(max_rows)  # known: prompt and emitted
        self.num_computed = zeros(max_rows)  # tokens whose KV is written and accepted
        self.max_total = zeros(max_rows)
        self.state_lengths = zeros(max_rows)  # tokens covered by the states of a hybrid model
        self.state_known = zeros(max_rows)  # tokens known when the row's last step began
        self.drafts = zeros(max_rows, max(num_drafts, 1))
        self.num_drafts = zeros(max_rows)
        self.block_tables = [zeros(max_rows, group.num_blocks(max_model_len), dtype=torch.int32) for group in groups]
        self.sampling = SamplingTable(max_rows, vocab_size, device, is_pinned=staging.is_pinned)
        self._kernels = kernels
        self._staging = staging

    def admit(self, admissions: tuple[RowAdmission, ...]) -> None:
        """Fill the rows of requests that start or resume; everything of the row's previous request is overwritten."""
        if not admissions:
            return
        tokens = self._staging.put({str(index): entry.token_ids for index, entry in enumerate(admissions)})
        scalars = self._staging.put(
            {
                "rows": [entry.row for entry in admissions],
                "num_tokens": [len(entry.token_ids) for entry in admissions],
                "num_computed": [entry.num_computed_tokens for entry in admissions],
                "max_total": [entry.max_total_tokens for entry in admissions],
            }
        )
        rows = scalars["rows"]
        self.num_tokens[rows] = scalars["num_tokens"]
        self.num_computed[rows] = scalars["num_computed"]
        self.max_total[rows] = scalars["max_total"]
        self.state_lengths[rows] = scalars["num_computed"]
        self.state_known[rows] = scalars["num_computed"]
        self.num_drafts.index_fill_(0, rows, 0)
        for block_tables in self.block_tables:
            block_tables.index_fill_(0, rows, 0)
        for index, entry in enumerate(admissions):
            self.token_ids[entry.row, : len(entry.token_ids)] = tokens[str(index)].to(torch.int32)
            self.sampling.write(entry)

    def put(self, arrays: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Lists of integers on the table's device, in one copy."""
        return self._staging.put(arrays)

    def add_blocks(self, new_blocks: tuple[NewBlocks, ...]) -> None:
        """Append blocks to block tables."""
        for group, block_tables in enumerate(self.block_tables):
            entries = [entry for entry in new_blocks if entry.group == group]
            if not entries:
                continue
            put = self._staging.put(
                {
                    "rows": [entry.row for entry in entries for _ in entry.block_ids],
                    "columns": [entry.first_index + i for entry in entries for i in range(len(entry.block_ids))],
                    "blocks": [block_id for entry in entries for block_id in entry.block_ids],
                }
            )
            block_tables[put["rows"], put["columns"]] = put["blocks"].to(torch.int32)

    def commit(self, batch: StepBatch, verified: Verified) -> None:
        """Append the emitted tokens to every row of the step and advance it."""
        self._kernels.commit(
            self.token_ids,
            self.num_tokens,
            self.num_computed,
            rows=batch.rows,
            num_known=batch.num_known,
            num_tokens_left=batch.num_tokens_left,
            emitted=verified.token_ids,
            num_emitted=verified.num_tokens,
            num_accepted=verified.num_accepted,
        )
        self.sampling.count(batch.rows, verified.token_ids, verified.num_tokens)
        if batch.forward.states is not None:
            self.state_lengths[batch.rows] = batch.forward.states.targets
            self.state_known[batch.rows] = batch.forward.states.known

    def put_drafts(self, batch: StepBatch, proposed: torch.Tensor, *, position_limit: int) -> None:
        """Keep drafts `proposed` [R, at most K] for the next step, as many as it asked for, up to the first that is
        not a token id."""
        self._kernels.put_drafts(
            self.drafts,
            self.num_drafts,
            rows=batch.rows,
            proposed=proposed[:, : batch.num_proposals],
            has_sampled=batch.num_samples > 0,
            num_tokens=self.num_tokens,
            vocab_size=self.vocab_size,
            position_limit=position_limit,
        )
