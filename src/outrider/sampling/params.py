"""Sampling parameters on the device: one row per running request, written at admission and read by every step.

It has the columns of each operation on logits (`sampling/operations/`), and what belongs to no single one: the noise
key, which tokens the prompt has, how often the output has each, and the requested log-probabilities. The request table
fills rows (`device/table.py`), with the values that this file packs. Lengths, drafts and last tokens are there, too;
nothing here is keyed by a batch's order.
"""

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_LOGPROB_TOKEN_IDS, SamplingParams
from outrider.sampling.column_memory import ColumnMemory
from outrider.sampling.operation import Column, Value, find_operations

_OWN_COLUMNS = (
    Column(name="seed", dtype=torch.int64, neutral=0),
    Column(name="completion_index", dtype=torch.int64, neutral=0),
    Column(name="num_prompt_tokens", dtype=torch.int64, neutral=0),
    Column(name="logprob_token_ids", dtype=torch.int64, neutral=0, shape=(MAX_LOGPROB_TOKEN_IDS,)),
)
"""Columns that belong to no operation."""


class SamplingTable:
    """Parameters of up to `max_rows` requests; allocated once, at a fixed address.

    `vocab_size` is the target's. Unwritten rows hold neutral values and may be sampled (padding).
    """

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device | str) -> None:
        device = torch.device(device)
        self.device = device
        self.vocab_size = vocab_size
        self.operations = find_operations(vocab_size)
        self.bits = {name: 1 << place for place, name in enumerate(self.operations)}
        """Bit of each operation in `needs`."""

        columns = [column for operation in self.operations.values() for column in operation.columns]
        names = [column.name for column in (*_OWN_COLUMNS, *columns)]
        for name in names:
            assert names.count(name) == 1, f"two operations have a column {name!r}"
        self.memory = ColumnMemory((*_OWN_COLUMNS, *columns), max_rows, device)
        self.columns = {column.name: self.memory.columns[column.name] for column in columns}
        """By name: [max_rows, *shape of the column], of all operations."""
        self.seed = self.memory.columns["seed"]  # [max_rows] int64, as the next two
        self.completion_index = self.memory.columns["completion_index"]
        self.num_prompt_tokens = self.memory.columns["num_prompt_tokens"]
        self.logprob_token_ids = self.memory.columns["logprob_token_ids"]  # [max_rows, MAX_LOGPROB_TOKEN_IDS] int64
        self.output_counts = torch.zeros(max_rows, vocab_size, dtype=torch.int32, device=device)
        self.prompt_mask = torch.zeros(max_rows, vocab_size, dtype=torch.bool, device=device)

        self.needs = np.zeros(max_rows, dtype=np.int64)  # on the host: bits of the operations that each row needs
        self.num_logprobs = np.full(max_rows, -1)  # on the host: number of top log-probabilities, -1 for none
        self.num_given = np.zeros(max_rows, dtype=np.int64)  # on the host: number of logprob_token_ids

    def needs_of(self, params: SamplingParams) -> int:
        """Bits of the operations that a request with these parameters needs: they choose work, never a result."""
        return sum([self.bits[name] for name, operation in self.operations.items() if operation.is_needed(params)])

    def begin(self, admission: RowAdmission) -> tuple[bytes, np.ndarray | None]:
        """Note on the host what a request that starts, or starts again, needs; return its numbers and lists, packed
        for the device (`ColumnMemory.pack`, `ColumnMemory.pack_lists`).

        Raises nothing; ids were checked at admission.
        """
        params, row = admission.params, admission.row
        self.needs[row] = self.needs_of(params)
        self.num_logprobs[row] = -1 if params.num_logprobs is None else params.num_logprobs
        self.num_given[row] = len(params.logprob_token_ids or ())
        values: dict[str, Value] = {
            "seed": admission.seed,
            "completion_index": admission.completion_index,
            "num_prompt_tokens": admission.num_prompt_tokens,
            "logprob_token_ids": params.logprob_token_ids or (),
        }
        for operation in self.operations.values():
            values.update(operation.values(admission))
        return self.memory.pack(values), self.memory.pack_lists(values)

    def count(self, rows: Tensor, token_ids: Tensor, num_tokens: Tensor) -> None:
        """Add emitted tokens to the output counts, on the device.

        rows [num_rows] int64; token_ids [num_rows, k + 1] int64, all in [0, vocab_size), of which the first
        num_tokens ([num_rows] int64) were emitted.
        """
        is_emitted = torch.arange(token_ids.shape[1], device=self.device) < num_tokens.unsqueeze(1)
        slots = rows.unsqueeze(1) * self.vocab_size + token_ids
        self.output_counts.view(-1).scatter_add_(0, slots.view(-1), is_emitted.to(torch.int32).view(-1))
