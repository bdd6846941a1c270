"""Sampling parameters on the device: one row per running request, written at admission and read by every step.

It has the columns of each operation on logits (`sampling/operations/`), and what belongs to no single one: the noise
key, which tokens the prompt has, how often the output has each, and the requested log-probabilities. Lengths,
drafts and last tokens are in the request table; nothing here is keyed by a batch's order.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import MAX_LOGPROB_TOKEN_IDS, SamplingParams
from outrider.sampling.operation import Value, find_operations


class SamplingTable:
    """Parameters of up to `max_rows` requests; allocated once, at a fixed address.

    `vocab_size` is the target's. Unwritten rows hold neutral values and may be sampled (padding).
    """

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device | str, *, is_pinned: bool = False) -> None:
        """`is_pinned`: values are copied to the device from pinned memory, so that the host need not wait."""
        device = torch.device(device)
        self._is_pinned = is_pinned
        self.device = device
        self.vocab_size = vocab_size
        self.operations = find_operations(vocab_size)
        self.bits = {name: 1 << place for place, name in enumerate(self.operations)}
        """Bit of each operation in `needs`."""

        self.columns: dict[str, Tensor] = {}
        """By name: [max_rows, *shape of the column], of all operations."""
        for operation in self.operations.values():
            for column in operation.columns:
                assert column.name not in self.columns, f"two operations have a column {column.name!r}"
                shape = (max_rows, *column.shape)
                self.columns[column.name] = torch.full(shape, column.neutral, dtype=column.dtype, device=device)

        self.seed = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.completion_index = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.num_prompt_tokens = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.logprob_token_ids = torch.zeros(max_rows, MAX_LOGPROB_TOKEN_IDS, dtype=torch.int64, device=device)
        self.output_counts = torch.zeros(max_rows, vocab_size, dtype=torch.int32, device=device)
        self.prompt_mask = torch.zeros(max_rows, vocab_size, dtype=torch.bool, device=device)

        self.needs = np.zeros(max_rows, dtype=np.int64)  # on the host: bits of the operations that each row needs
        self.num_logprobs = np.full(max_rows, -1)  # on the host: number of top log-probabilities, -1 for none
        self.num_given = np.zeros(max_rows, dtype=np.int64)  # on the host: number of logprob_token_ids

    def needs_of(self, params: SamplingParams) -> int:
        """Bits of the operations that a request with these parameters needs: they choose work, never a result."""
        return sum(self.bits[name] for name, operation in self.operations.items() if operation.is_needed(params))

    def write(self, admission: RowAdmission) -> None:
        """Fill the row of a request that starts, or starts again; nothing of the row's previous request remains.

        The counts are rebuilt from the tokens, so that replay after preemption goes on as before: the first
        `num_prompt_tokens` are prompt, the rest is output. Raises nothing; ids were checked at admission.
        """
        params, row = admission.params, admission.row
        self.needs[row] = self.needs_of(params)
        self.num_logprobs[row] = -1 if params.num_logprobs is None else params.num_logprobs
        self.num_given[row] = len(params.logprob_token_ids or ())
        for operation in self.operations.values():
            for name, value in operation.values(admission).items():
                self._put(self.columns[name][row], value)
        self._put(self.seed[row], admission.seed)
        self._put(self.completion_index[row], admission.completion_index)
        self._put(self.num_prompt_tokens[row], admission.num_prompt_tokens)
        self._put(self.logprob_token_ids[row], params.logprob_token_ids or ())

        token_ids = self._to_device(admission.token_ids, torch.int64)
        output_ids = token_ids[admission.num_prompt_tokens :]
        self.prompt_mask[row].zero_().index_fill_(0, token_ids[: admission.num_prompt_tokens], True)
        ones = torch.ones_like(output_ids, dtype=torch.int32)
        self.output_counts[row].zero_().scatter_add_(0, output_ids, ones)

    def count(self, rows: Tensor, token_ids: Tensor, num_tokens: Tensor) -> None:
        """Add emitted tokens to the output counts, on the device.

        rows [num_rows] int64; token_ids [num_rows, k + 1] int64, all in [0, vocab_size), of which the first
        num_tokens ([num_rows] int64) were emitted.
        """
        is_emitted = torch.arange(token_ids.shape[1], device=self.device) < num_tokens.unsqueeze(1)
        slots = rows.unsqueeze(1) * self.vocab_size + token_ids
        self.output_counts.view(-1).scatter_add_(0, slots.view(-1), is_emitted.to(torch.int32).view(-1))

    def _put(self, entry: Tensor, value: Value) -> None:
        """Fill `entry` with a number, or its first places with a sequence; the places after them are not read."""
        if isinstance(value, (int, float)):
            entry.fill_(value)
            return
        assert len(value) <= entry.shape[0], f"{len(value)} values for {entry.shape[0]} places"
        if len(value):
            entry[: len(value)].copy_(self._to_device(value, entry.dtype))

    def _to_device(self, values: Sequence[float] | Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
        host = torch.tensor(values, dtype=dtype)
        if self._is_pinned:
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)
