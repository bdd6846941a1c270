"""Chooses tokens, in one call for plain decoding and for the k + 1 rows of a verified request.

A sample is one row of logits. Sample i of a request is treated as if the drafts 0 .. i-1 had been accepted, so its
token is the one that plain decoding would choose there. This file does not verify drafts.

Order of work (vLLM's): log-probabilities and hash of the raw logits; logit bias; stop ids before min_tokens;
penalties; tokens that are not allowed, bad words and grammars; operations without a kernel; the largest logit where
temperature is 0; else temperature, min_p, top_k, top_p and the Gumbel argmax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outrider.kernels import Kernels, load_kernels
from outrider.sampling.params import SamplingTable


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch:
    """The request of each row of logits, and the operations to run."""

    rows: Tensor  # [num_samples] int64, row of the sampling table
    offsets: Tensor  # [num_samples] int64, i: drafts 0 .. i-1 count as accepted
    lengths: Tensor  # [num_samples] int64, tokens before the one produced: its absolute position
    drafts: Tensor  # [num_samples, k] int64 in [0, vocab_size), the request's drafts; the first `offsets` are read
    lists: Mapping[str, Tensor | None]
    """By operation: the samples whose request needs it, [number] int64, no sample twice; None: no sample does.

    The lists only save work: a sample that is listed without need has the same result. No sample needs an operation
    that is missing here."""
    num_logprobs: int | None  # largest number of top log-probabilities; None: no log-probabilities
    wants_digest: bool
    token_ids: Tensor | None = None  # [max_rows, max_tokens] int32, the request table's; read for bad words
    num_given: int = 0  # largest number of logprob_token_ids of a request

    @property
    def num_samples(self) -> int:
        return self.rows.shape[0]

    @property
    def has_random_samples(self) -> bool:
        """True if a sample may have a temperature above 0."""
        return self.lists.get("random") is not None


@dataclass(frozen=True, slots=True)
class SampleMasks:
    """Tokens that grammars allow, for some of a step's samples."""

    of_sample: Tensor  # [num_samples] int64, the mask of each sample, or -1
    words: Tensor  # [number, at least ceil(vocab_size / 32)] int32: bit t % 32 of word t // 32 allows token t


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Results of the sampler, on the device; rows in the order of the samples."""

    token_ids: Tensor  # [num_samples] int64
    logprobs: Tensor | None  # [num_samples] fp32, of the chosen token
    ranks: Tensor | None  # [num_samples] int64, of the chosen token, from 1
    top_ids: Tensor | None  # [num_samples, min(num_logprobs, vocab_size)] int64
    top_logprobs: Tensor | None  # likewise fp32
    given_logprobs: Tensor | None  # [num_samples, num_given] fp32, of the ids that the request asked for
    given_ranks: Tensor | None  # likewise int64
    logits_hashes: Tensor | None  # [num_samples] int64, see `hash_rows` of the kernels


class Sampler:
    """Samples every row alone: its bits do not depend on the other rows."""

    def __init__(self, kernels: Kernels | None = None) -> None:
        """`kernels`: None for plain PyTorch."""
        self._kernels = kernels or load_kernels(("reference",))

    def __call__(
        self, logits: Tensor, batch: SampleBatch, table: SamplingTable, masks: SampleMasks | None = None
    ) -> Sampled:
        """Choose a token for each row of `logits` ([num_samples, vocab_size] fp32, changed only if nothing reads them
        after the choice).

        NaN counts as -inf and +inf as the largest number. Where every token is -inf the choice is token 0.
        """
        assert logits.shape == (batch.num_samples, table.vocab_size), (
            f"logits {tuple(logits.shape)} are not {batch.num_samples} samples of {table.vocab_size} tokens"
        )
        assert logits.dtype == torch.float32, f"logits are {logits.dtype}, not float32"
        kernels = self._kernels
        processed = self._process(logits, batch, table)
        if masks is not None:
            is_read_later = batch.num_logprobs is not None or batch.wants_digest
            in_place = processed is not logits or not is_read_later
            processed = kernels.apply_masks(processed, masks.words, masks.of_sample, in_place=in_place)
        processed = _apply(processed, batch, table)
        token_ids = kernels.choose(
            processed,
            rows=batch.rows,
            positions=batch.lengths,
            seeds=table.seed,
            completion_indices=table.completion_index,
            **_arguments("choose", batch, table),
        )
        logprobs = None
        if batch.num_logprobs is not None:
            given_ids = table.logprob_token_ids[batch.rows, : batch.num_given]
            logprobs = kernels.logprobs(logits, token_ids, num_top=batch.num_logprobs, given_ids=given_ids)
        return Sampled(
            token_ids=token_ids,
            logprobs=logprobs.chosen if logprobs else None,
            ranks=logprobs.ranks if logprobs else None,
            top_ids=logprobs.top_ids if logprobs else None,
            top_logprobs=logprobs.top_logprobs if logprobs else None,
            given_logprobs=logprobs.given if logprobs else None,
            given_ranks=logprobs.given_ranks if logprobs else None,
            logits_hashes=kernels.hash_rows(logits) if batch.wants_digest else None,
        )

    def _process(self, logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Tensor:
        """Logits [num_samples, vocab_size] fp32 after all operations of the kernel `process`."""
        names = [name for name, operation in table.operations.items() if operation.kernel == "process"]
        if all(batch.lists.get(name) is None for name in names):
            return logits
        return self._kernels.process(
            logits,
            rows=batch.rows,
            offsets=batch.offsets,
            lengths=batch.lengths,
            drafts=batch.drafts,
            output_counts=table.output_counts,
            prompt_mask=table.prompt_mask,
            token_ids=batch.token_ids,
            num_prompt_tokens=table.num_prompt_tokens,
            **_arguments("process", batch, table),
        )


def _arguments(kernel: str, batch: SampleBatch, table: SamplingTable) -> dict[str, Any]:
    """Arguments of a kernel: columns of all its operations, and `x_index`, the samples that need operation x."""
    arguments: dict[str, Any] = {}
    for name, operation in table.operations.items():
        if operation.kernel == kernel:
            arguments |= {column.name: table.columns[column.name] for column in operation.columns}
            arguments[f"{name}_index"] = batch.lists.get(name)
    return arguments


def _apply(logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Tensor:
    """Logits after the operations that have no kernel, each on the samples that need it."""
    for name, operation in table.operations.items():
        index = batch.lists.get(name)
        if operation.kernel is None and index is not None:
            rows = batch.rows[index]
            own = {column.name: table.columns[column.name][rows] for column in operation.columns}
            logits = logits.index_copy(0, index, operation.apply(logits[index], own))
    return logits
