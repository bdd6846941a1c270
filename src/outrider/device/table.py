"""The request table: one row per request for its lifetime, the only place on the device with the request's state.

Batch order is an index list made for each step (`rows`); nothing is keyed by the position in a batch. Only `admit`,
`commit` and `put_drafts` change state. Independent of models and drafters.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch

from outrider.core.kv_groups import BlockGroup
from outrider.core.plan import NewBlocks, RowAdmission
from outrider.core.sampling_params import SamplingParams
from outrider.device.admission_record import LENGTHS, RecordPacker
from outrider.device.staging import Staging
from outrider.device.step_batch import StepBatch
from outrider.kernels import Kernels
from outrider.kernels.interface.sampling import Verified
from outrider.kernels.interface.step import AdmissionRecord, TableMemory
from outrider.sampling.params import SamplingTable

_ALIGNED = 16
"""A kind of length begins at a multiple of this number of rows, and a group's block table at a multiple of this number
of blocks."""


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
        lengths = zeros(len(LENGTHS), _aligned(max_rows))
        by_name = dict(zip(LENGTHS, lengths[:, :max_rows], strict=True))  # each [max_rows] int64
        self.num_tokens = by_name["num_tokens"]  # known: prompt and emitted
        self.num_computed = by_name["num_computed"]  # tokens whose KV is written and accepted
        self.max_total = by_name["max_total"]
        self.state_lengths = by_name["state_lengths"]  # tokens covered by the states of a hybrid model
        self.state_known = by_name["state_known"]  # tokens known when the row's last step began
        self.num_drafts = by_name["num_drafts"]
        self.drafts = zeros(max_rows, max(num_drafts, 1))
        num_blocks = [group.num_blocks(max_model_len) for group in groups]
        *first_columns, num_columns = accumulate(map(_aligned, num_blocks), initial=0)
        tables = zeros(max_rows, num_columns, dtype=torch.int32)
        self.block_tables = [
            tables[:, first : first + count] for first, count in zip(first_columns, num_blocks, strict=True)
        ]  # for each group [max_rows, blocks of max_model_len tokens] int32
        self.sampling = SamplingTable(max_rows, vocab_size, device)
        self._memory = TableMemory(
            lengths=lengths,
            token_ids=self.token_ids,
            block_tables=tables,
            wide=self.sampling.memory.wide,
            narrow=self.sampling.memory.narrow,
            lists=self.sampling.memory.lists,
            neutral_lists=self.sampling.memory.neutral_lists,
            prompt_mask=self.sampling.prompt_mask,
            output_counts=self.sampling.output_counts,
        )
        self._packer = RecordPacker(self.sampling, first_columns=first_columns, num_columns=num_columns)
        self._kernels = kernels
        self._staging = staging
        self.admit((_nobody(self.padding_row),))  # changes nothing, but compiles the kernel before there are requests

    def admit(self, admissions: Sequence[RowAdmission], new_blocks: Sequence[NewBlocks] = ()) -> None:
        """Fill the rows of requests that start or resume; everything of the row's previous request is overwritten.
        Append new blocks to block tables, of these rows and of others.

        However many there are, it takes one copy and one launch.
        """
        if admissions or new_blocks:
            arrays, sizes = self._packer.pack(admissions, new_blocks)
            self._kernels.admit(self._memory, AdmissionRecord(self._staging.put_record(arrays), sizes))

    def put(self, arrays: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Lists of integers on the table's device, in one copy."""
        return self._staging.put(arrays)

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


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _nobody(row: int) -> RowAdmission:
    """A request without tokens."""
    return RowAdmission(
        row=row,
        request_id="",
        token_ids=(),
        num_prompt_tokens=0,
        num_computed_tokens=0,
        last_cached_block=-1,
        max_total_tokens=0,
        params=SamplingParams(temperature=0.0),
        seed=0,
        stop_token_ids=(),
    )
