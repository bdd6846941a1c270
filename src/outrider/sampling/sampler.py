"""Choosing tokens: one call for plain decoding and for the k + 1 rows of a verified request.

A sample is one row of logits. Sample i of a request is treated as if the drafts 0 .. i-1 had been accepted, so its
token is the one that plain decoding would choose there. Whether drafts are accepted is the verifier's business.

Order of work (vLLM's): log-probabilities and hash of the raw logits; logit bias; stop ids before min_tokens;
penalties; tokens that are not allowed, and bad words; the largest logit where temperature is 0; else temperature, min_p, top_k, top_p and the Gumbel argmax.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from outrider.kernels.reference import sampling as kernels
from outrider.sampling.digest import hash_rows
from outrider.sampling.logprobs import compute_logprobs
from outrider.sampling.noise import gumbel
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
    logits_hashes: Tensor | None  # [num_samples] int64, see `digest.hash_rows`


class Sampler:
    """Samples every row alone: its bits do not depend on the other rows."""

    def __call__(self, logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Sampled:
        """Choose a token for each row of `logits` ([num_samples, vocab_size] fp32, not changed).

        NaN counts as -inf and +inf as the largest number. Where every token is -inf the choice is token 0.
        """
        assert logits.shape == (batch.num_samples, table.vocab_size), (
            f"logits {tuple(logits.shape)} are not {batch.num_samples} samples of {table.vocab_size} tokens"
        )
        assert logits.dtype == torch.float32, f"logits are {logits.dtype}, not float32"
        raw = kernels.finite(logits)
        token_ids = _choose(_process(raw, batch, table), batch, table)
        logits_hashes = hash_rows(logits) if batch.wants_digest else None
        if batch.num_logprobs is None:
            return Sampled(
                token_ids=token_ids,
                logprobs=None,
                ranks=None,
                top_ids=None,
                top_logprobs=None,
                given_logprobs=None,
                given_ranks=None,
                logits_hashes=logits_hashes,
            )
        given_ids = table.logprob_token_ids[batch.rows, : batch.num_given]
        logprobs = compute_logprobs(raw, token_ids, num_logprobs=batch.num_logprobs, given_ids=given_ids)
        return Sampled(
            token_ids=token_ids,
            logprobs=logprobs.chosen,
            ranks=logprobs.ranks,
            top_ids=logprobs.top_ids,
            top_logprobs=logprobs.top_logprobs,
            given_logprobs=logprobs.given,
            given_ranks=logprobs.given_ranks,
            logits_hashes=logits_hashes,
        )


def _process(logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Tensor:
    """What changes logits before temperature, each where it is listed: [num_samples, vocab_size] fp32."""

    def add_bias(logits: Tensor, index: Tensor) -> Tensor:
        rows = batch.rows[index]
        counts = table.num_logit_bias[rows]
        return kernels.add_bias(logits, table.logit_bias_ids[rows], table.logit_bias[rows], counts)

    def forbid_stop_ids(logits: Tensor, index: Tensor) -> Tensor:
        rows = batch.rows[index]
        is_early = batch.lengths[index] < table.min_length[rows]
        return kernels.forbid(logits, table.stop_token_ids[rows], table.num_stop_token_ids[rows] * is_early)

    def penalize(logits: Tensor, index: Tensor) -> Tensor:
        rows = batch.rows[index]
        counts = kernels.count_drafts(table.output_counts[rows], batch.drafts[index], batch.offsets[index])
        return kernels.penalize(
            logits,
            counts,
            table.prompt_mask[rows],
            repetition=table.repetition_penalty[rows],
            presence=table.presence_penalty[rows],
            frequency=table.frequency_penalty[rows],
        )

    def allow(logits: Tensor, index: Tensor) -> Tensor:
        return kernels.apply_mask(logits, table.allowed[batch.rows[index]])

    def forbid_bad_words(logits: Tensor, index: Tensor) -> Tensor:
        assert batch.token_ids is not None, "bad words need the tokens before them"
        rows, words = batch.rows[index], table.bad_words
        tails = kernels.output_tails(
            batch.token_ids[rows],
            batch.drafts[index],
            offsets=batch.offsets[index],
            lengths=batch.lengths[index],
            num_prompt_tokens=table.num_prompt_tokens[rows],
            width=words.shape[2] - 1,
        )
        return kernels.forbid_words(logits, tails, words[rows], table.num_bad_words[rows])

    logits = _replace(logits, batch.bias_index, add_bias)
    logits = _replace(logits, batch.min_tokens_index, forbid_stop_ids)
    logits = _replace(logits, batch.penalty_index, penalize)
    logits = _replace(logits, batch.allowed_index, allow)
    return _replace(logits, batch.bad_words_index, forbid_bad_words)


def _choose(logits: Tensor, batch: SampleBatch, table: SamplingTable) -> Tensor:
    """Tokens of processed logits: [num_samples] int64."""
    token_ids = kernels.argmax(logits)
    if batch.random_index is None:
        return token_ids

    # A greedy row that is listed divides by 1 and gets no noise.
    temperature = table.temperature[batch.rows]
    scaled = kernels.below_max(logits) / torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)

    def truncate(scaled: Tensor, index: Tensor) -> Tensor:
        rows = batch.rows[index]
        top_k, top_p, min_p = table.top_k[rows], table.top_p[rows], table.min_p[rows]
        return kernels.truncate(logits[index], scaled, top_k=top_k, top_p=top_p, min_p=min_p)

    scaled = _replace(scaled, batch.truncation_index, truncate)
    index = batch.random_index
    rows = batch.rows[index]
    noise = gumbel(table.seed[rows], table.choice[rows], batch.lengths[index], table.vocab_size)
    noise = torch.where((temperature[index] > 0).unsqueeze(1), noise, 0.0)
    return token_ids.index_copy(0, index, kernels.argmax(scaled[index] + noise))


def _replace(values: Tensor, index: Tensor | None, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`values` with the listed rows put through `change(values[index], index)`; the others keep their bits."""
    return values if index is None else values.index_copy(0, index, change(values[index], index))
