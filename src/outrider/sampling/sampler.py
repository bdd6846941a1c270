"""Choosing tokens: one call for plain decoding and for the k + 1 rows of a verified request.

A sample is one row of logits. Sample i of a request is treated as if the drafts 0 .. i-1 had been accepted, so its
token is the one that plain decoding would choose there. Whether drafts are accepted is the verifier's business.

Order of work (vLLM's): log-probabilities and hash of the raw logits; logit bias; stop ids before min_tokens;
penalties; tokens that are not allowed, bad words and grammars; the largest logit where temperature is 0; else
temperature, min_p, top_k, top_p and the Gumbel argmax.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.kernels import Kernels, load_kernels
from outrider.sampling.params import SamplingTable


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch:
    """Which request each row of logits belongs to, and what work there is.

    The index lists ([number] int64, no sample twice) are known to the host and only say where work may be left
    out: a sample that is listed without need comes out the same. None: no sample needs it.
    """

    rows: Tensor  # [num_samples] int64, row of the sampling table
    offsets: Tensor  # [num_samples] int64, i: drafts 0 .. i-1 count as accepted
    lengths: Tensor  # [num_samples] int64, tokens before the one produced: its absolute position
    drafts: Tensor  # [num_samples, k] int64 in [0, vocab_size), the request's drafts; the first `offsets` are read
    random_index: Tensor | None  # samples with temperature > 0; those not listed are greedy
    penalty_index: Tensor | None  # samples whose request has penalties
    bias_index: Tensor | None  # samples whose request has a logit bias
    min_tokens_index: Tensor | None  # samples whose request has min_tokens
    truncation_index: Tensor | None  # random samples whose request has top_k, top_p or min_p
    num_logprobs: int | None  # most top log-probabilities that a sample wants; None: no log-probabilities
    wants_digest: bool
    bad_words_index: Tensor | None = None  # samples whose request has bad words
    allowed_index: Tensor | None = None  # samples whose request may produce certain tokens only
    mask_index: Tensor | None = None  # samples whose request has a grammar
    masks: Tensor | None = None  # [len(mask_index), ceil(vocab_size / 32)] int32, a bit for each token it allows
    token_ids: Tensor | None = None  # [max_rows, max_tokens] int32, the request table's; read for bad words
    num_given: int = 0  # most token ids whose log-probabilities a request asked for by id

    @property
    def num_samples(self) -> int:
        return self.rows.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What the sampler chose; on the device, rows in the order of the samples."""

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

    def __call__(self, logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Sampled:
        """Choose a token for each row of `logits` ([num_samples, vocab_size] fp32, not changed).

        NaN counts as -inf and +inf as the largest number. Where every token is -inf the choice is token 0.
        """
        assert logits.shape == (batch.num_samples, table.vocab_size), (
            f"logits {tuple(logits.shape)} are not {batch.num_samples} samples of {table.vocab_size} tokens"
        )
        assert logits.dtype == torch.float32, f"logits are {logits.dtype}, not float32"
        kernels = self._kernels
        token_ids = kernels.choose(
            self._mask(self._process(logits, batch, table), batch),
            rows=batch.rows,
            positions=batch.lengths,
            temperature=table.temperature,
            top_k=table.top_k,
            top_p=table.top_p,
            min_p=table.min_p,
            seeds=table.seed,
            completion_indices=table.completion_index,
            random_index=batch.random_index,
            truncation_index=batch.truncation_index,
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
        """What changes logits before temperature, each where it is listed: [num_samples, vocab_size] fp32."""
        lists = {
            "bias_index": batch.bias_index,
            "min_tokens_index": batch.min_tokens_index,
            "penalty_index": batch.penalty_index,
            "allowed_index": batch.allowed_index,
            "bad_words_index": batch.bad_words_index,
        }
        if all(index is None for index in lists.values()):
            return logits
        return self._kernels.process(
            logits,
            rows=batch.rows,
            offsets=batch.offsets,
            lengths=batch.lengths,
            drafts=batch.drafts,
            num_logit_bias=table.num_logit_bias,
            logit_bias_ids=table.logit_bias_ids,
            logit_bias=table.logit_bias,
            min_length=table.min_length,
            num_stop_token_ids=table.num_stop_token_ids,
            stop_token_ids=table.stop_token_ids,
            output_counts=table.output_counts,
            prompt_mask=table.prompt_mask,
            repetition=table.repetition_penalty,
            presence=table.presence_penalty,
            frequency=table.frequency_penalty,
            allowed=table.allowed,
            num_bad_words=table.num_bad_words,
            bad_words=table.bad_words,
            token_ids=batch.token_ids,
            num_prompt_tokens=table.num_prompt_tokens,
            **lists,
        )

    def _mask(self, logits: Tensor, batch: SampleBatch) -> Tensor:
        """-inf where a grammar forbids a token."""
        if batch.mask_index is None or batch.masks is None:
            return logits
        masked = self._kernels.apply_mask(logits[batch.mask_index], batch.masks)
        return logits.index_copy(0, batch.mask_index, masked)
