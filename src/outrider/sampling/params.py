"""Sampling parameters on the device: one row per running request, written at admission and read by every step.

Beside the parameters it holds what penalties need: which tokens the prompt has, and how often the output has each.
Lengths, drafts and last tokens are in the request table; nothing here is keyed by a batch's order.
"""

from collections.abc import Sequence
from enum import IntFlag

import numpy as np
import torch
from torch import Tensor

from outrider.core.plan import RowAdmission
from outrider.core.sampling_params import (
    MAX_BAD_WORD_TOKENS,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)

_LARGEST = torch.finfo(torch.float32).max


class Need(IntFlag):
    """Parts of the sampler that a request needs: host facts that choose work, never a result."""

    NOTHING = 0
    RANDOM = 1
    TRUNCATION = 2
    PENALTIES = 4
    BIAS = 8
    MIN_TOKENS = 16
    BAD_WORDS = 32
    ALLOWED = 64


def needs_of(params: SamplingParams) -> Need:
    """What a request with these parameters needs."""
    need = Need.NOTHING
    for part, is_needed in (
        (Need.RANDOM, not params.is_greedy),
        (Need.TRUNCATION, params.has_truncation),
        (Need.PENALTIES, params.has_penalties),
        (Need.BIAS, bool(params.logit_bias)),
        (Need.MIN_TOKENS, params.min_tokens > 0),
        (Need.BAD_WORDS, bool(params.bad_words)),
        (Need.ALLOWED, params.allowed_token_ids is not None),
    ):
        if is_needed:
            need |= part
    return need


class SamplingTable:
    """Parameters of up to `max_rows` requests; allocated once, at a fixed address.

    `vocab_size` is the target's. Unwritten rows hold neutral values and may be sampled (padding).
    """

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device | str, *, is_pinned: bool = False) -> None:
        """`is_pinned`: values are copied to the device from pinned memory, so that the host need not wait."""
        device = torch.device(device)
        self._is_pinned = is_pinned

        def column(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((max_rows,), value, dtype=dtype, device=device)

        self.device = device
        self.vocab_size = vocab_size
        self.temperature = column(0.0, torch.float32)  # [max_rows]; 0 is greedy
        self.top_p = column(1.0, torch.float32)  # [max_rows]
        self.min_p = column(0.0, torch.float32)  # [max_rows]
        self.repetition_penalty = column(1.0, torch.float32)  # [max_rows]
        self.presence_penalty = column(0.0, torch.float32)  # [max_rows]
        self.frequency_penalty = column(0.0, torch.float32)  # [max_rows]
        self.top_k = column(0, torch.int64)  # [max_rows]; 0 keeps all
        self.seed = column(0, torch.int64)  # [max_rows]
        self.completion_index = column(0, torch.int64)  # [max_rows], index of the completion
        self.min_length = column(0, torch.int64)  # [max_rows], no stop id at a position below it
        self.num_prompt_tokens = column(0, torch.int64)  # [max_rows]

        self.num_stop_token_ids = column(0, torch.int64)  # [max_rows]
        self.stop_token_ids = torch.zeros(max_rows, MAX_STOP_TOKEN_IDS, dtype=torch.int64, device=device)
        self.num_logit_bias = column(0, torch.int64)  # [max_rows]
        self.logit_bias_ids = torch.zeros(max_rows, MAX_LOGIT_BIAS, dtype=torch.int64, device=device)
        self.logit_bias = torch.zeros(max_rows, MAX_LOGIT_BIAS, dtype=torch.float32, device=device)

        self.num_bad_words = column(0, torch.int64)  # [max_rows]
        bad_words_shape = (max_rows, MAX_BAD_WORDS, MAX_BAD_WORD_TOKENS)  # words at the right, -1 in front
        self.bad_words = torch.full(bad_words_shape, -1, dtype=torch.int32, device=device)
        num_words = -(-vocab_size // 32)
        self.allowed = torch.full((max_rows, num_words), -1, dtype=torch.int32, device=device)  # a bit for each token
        self.logprob_token_ids = torch.zeros(max_rows, MAX_LOGPROB_TOKEN_IDS, dtype=torch.int64, device=device)

        self.output_counts = torch.zeros(max_rows, vocab_size, dtype=torch.int32, device=device)
        self.prompt_mask = torch.zeros(max_rows, vocab_size, dtype=torch.bool, device=device)

        self.needs = np.zeros(max_rows, dtype=np.int64)  # on the host: `Need` of each row
        self.num_logprobs = np.full(max_rows, -1)  # on the host: top log-probabilities asked for, -1 for none
        self.num_given = np.zeros(max_rows, dtype=np.int64)  # on the host: ids whose log-probabilities are asked for

    def write(self, admission: RowAdmission) -> None:
        """Fill the row of a request that starts, or starts again: nothing of the row's last owner stays.

        The counts are rebuilt from the tokens, so that replay after preemption goes on as before: the first
        `num_prompt_tokens` are prompt, the rest is output. Raises nothing; ids were checked at admission.
        """
        params, row = admission.params, admission.row
        self.needs[row] = needs_of(params)
        self.num_logprobs[row] = -1 if params.num_logprobs is None else params.num_logprobs
        self.num_given[row] = len(params.logprob_token_ids or ())
        for table, value in (
            (self.temperature, 0.0 if params.is_greedy else params.temperature),
            (self.top_p, params.top_p),
            (self.min_p, params.min_p),
            (self.repetition_penalty, params.repetition_penalty),
            (self.presence_penalty, params.presence_penalty),
            (self.frequency_penalty, params.frequency_penalty),
            (self.top_k, params.top_k),
            (self.seed, admission.seed),
            (self.completion_index, admission.completion_index),
            (self.min_length, admission.num_prompt_tokens + params.min_tokens),
            (self.num_prompt_tokens, admission.num_prompt_tokens),
        ):
            table[row].fill_(value)

        self._write_list(self.stop_token_ids[row], self.num_stop_token_ids[row], admission.stop_token_ids)
        bias = params.logit_bias or {}
        values = [min(max(value, -_LARGEST), _LARGEST) for value in bias.values()]
        self._write_list(self.logit_bias_ids[row], self.num_logit_bias[row], list(bias))
        self._write_list(self.logit_bias[row], self.num_logit_bias[row], values)

        self._write_words(row, admission.bad_words)
        self._write_allowed(row, params.allowed_token_ids)
        given = params.logprob_token_ids or []
        self.logprob_token_ids[row, : len(given)].copy_(self._to_device(given, torch.int64))

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

    def _write_list(self, target: Tensor, count: Tensor, values: Sequence[float]) -> None:
        """The head of `target` ([max_values]) and its `count` (scalar); what lies behind is not read."""
        assert len(values) <= target.shape[0], f"{len(values)} values for {target.shape[0]} places"
        target[: len(values)].copy_(self._to_device(values, target.dtype))
        count.fill_(len(values))

    def _write_words(self, row: int, words: Sequence[Sequence[int]]) -> None:
        self.num_bad_words[row].fill_(len(words))
        if words:
            flat = [[-1] * (MAX_BAD_WORD_TOKENS - len(word)) + list(word) for word in words]
            self.bad_words[row, : len(words)].copy_(self._to_device(flat, torch.int32))

    def _write_allowed(self, row: int, token_ids: Sequence[int] | None) -> None:
        if token_ids is None:
            self.allowed[row].fill_(-1)
            return
        bits = [0] * self.allowed.shape[1]
        for token_id in token_ids:
            bits[token_id // 32] |= 1 << token_id % 32
        signed = [word - (1 << 32) if word >> 31 else word for word in bits]
        self.allowed[row].copy_(self._to_device(signed, torch.int32))

    def _to_device(self, values: Sequence[float] | Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
        host = torch.tensor(values, dtype=dtype)
        if self._is_pinned:
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)
