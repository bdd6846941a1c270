"""Kernels of the sampler: changing rows of logits, choosing tokens, log-probabilities, and verifying drafts.

The order of tokens is (logit descending, id ascending) everywhere. Legend: S samples (rows of logits), V vocabulary
size, N rows of the sampling table, R requests of the step, k drafts.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

SYNTHETIC_SIZE = 1 << 16
"""Numbers in the table of synthetic acceptance."""

SYNTHETIC_STRIDE = 40503
"""Factor of the seed in a request's place in that table: odd, near 2^16 times the golden ratio, so that neighbouring
seeds start far apart."""


class Logprobs(NamedTuple):
    """Log-probabilities of tokens, one row per row of logits."""

    chosen: Tensor  # [S] fp32
    ranks: Tensor  # [S] int64, 1 for the most likely token; ties count the lower id first
    top_ids: Tensor  # [S, num_top] int64, in order
    top_logprobs: Tensor  # [S, num_top] fp32
    given: Tensor  # [S, num_given] fp32
    given_ranks: Tensor  # [S, num_given] int64


class Verified(NamedTuple):
    """Tokens that a step emits for each request."""

    token_ids: Tensor  # [R, k + 1] int64; the first num_tokens are emitted, the others are 0
    num_tokens: Tensor  # [R] int64, accepted drafts + 1, at most the tokens left; 0 without samples
    num_accepted: Tensor  # [R] int64, drafts among the emitted tokens


class SyntheticAcceptance(NamedTuple):
    """Tables that accept drafts at random instead of by equality, for benchmarks: draft i is accepted where a request's
    number is below rate i.

    The number of a request is entry (seed * SYNTHETIC_STRIDE + length) mod SYNTHETIC_SIZE of `numbers`. Accepted
    drafts are emitted as they are.
    """

    numbers: Tensor  # [SYNTHETIC_SIZE] fp32 in [0, 1)
    rates: Tensor  # [k] fp32, non-increasing
    seeds: Tensor  # [N] int64, a column of the sampling table
    lengths: Tensor  # [N] int64, a column of the request table: tokens before the first that the step produces


class SamplingKernels(Protocol):
    """Kernels that work on rows of logits. Knows tensors only, nothing of requests."""

    def process(
        self,
        logits: Tensor,
        *,
        rows: Tensor,
        offsets: Tensor,
        lengths: Tensor,
        drafts: Tensor,
        num_logit_bias: Tensor,
        logit_bias_ids: Tensor,
        logit_bias: Tensor,
        min_length: Tensor,
        num_stop_token_ids: Tensor,
        stop_token_ids: Tensor,
        output_counts: Tensor,
        prompt_mask: Tensor,
        repetition: Tensor,
        presence: Tensor,
        frequency: Tensor,
        allowed: Tensor,
        num_bad_words: Tensor,
        bad_words: Tensor,
        token_ids: Tensor | None,
        num_prompt_tokens: Tensor,
        bias_index: Tensor | None,
        min_tokens_index: Tensor | None,
        penalty_index: Tensor | None,
        allowed_index: Tensor | None,
        bad_words_index: Tensor | None,
    ) -> Tensor:
        """logits [S, V] fp32 after every change that comes before temperature, in the order of the index lists.

        For each sample: rows, its entry in the tables; offsets, drafts that count as accepted; lengths, tokens before
        the one produced; all [S] int64; drafts [S, k] int64. The other tensors are tables of N entries, as
        `SamplingTable` lays them out, and token_ids [N, max_tokens] int32 of the request table, needed for bad words.
        The index lists only save work: a sample that is listed without need keeps its bits. A stack may find the
        samples on the device and only check whether a list was passed.
        """

    def apply_masks(self, logits: Tensor, words: Tensor, of_sample: Tensor, *, in_place: bool) -> Tensor:
        """-inf at every token whose bit is 0 in the sample's mask: token t is bit t % 32 of word t // 32.

        logits [S, V] fp32, words [G, at least ceil(V / 32)] int32, of_sample [S] int64: the mask of each sample, or -1
        for none. With `in_place` the result is `logits`, else a new tensor.
        """

    def choose(
        self,
        logits: Tensor,
        *,
        rows: Tensor,
        positions: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        seeds: Tensor,
        completion_indices: Tensor,
        random_index: Tensor | None,
        truncation_index: Tensor | None,
    ) -> Tensor:
        """A token [S] int64 for each row of processed logits [S, V] fp32.

        rows [S] int64: entry of each sample in the columns temperature, top_p, min_p [N] fp32, top_k, seeds,
        completion_indices [N] int64. positions [S] int64, of the token produced. Temperature 0 takes the first token
        in order. The index lists only save work, as in `process`.
        """

    def draft_choose(
        self,
        logits: Tensor,
        target_ids: Tensor,
        *,
        rows: Tensor,
        positions: Tensor,
        temperature: Tensor,
        seeds: Tensor,
        completion_indices: Tensor,
        has_random_rows: bool,
    ) -> Tensor:
        """Target ids of drafts [S] int64, chosen under the target's own noise.

        logits [S, draft vocabulary] fp32, target_ids [draft vocabulary] int64; the others as in `choose`.
        """

    def logprobs(self, logits: Tensor, token_ids: Tensor, *, num_top: int, given_ids: Tensor | None = None) -> Logprobs:
        """Log-probabilities of token_ids [S] int64, of the most likely tokens, and of given_ids [S, num_given] int64.

        logits [S, V] fp32, raw. At most V top tokens are returned.
        """

    def hash_rows(self, logits: Tensor) -> Tensor:
        """A 64-bit hash [S] int64 of the bits of each row of logits [S, V] fp32."""

    def verify(
        self,
        sampled_ids: Tensor,
        *,
        sample_starts: Tensor,
        num_samples: Tensor,
        drafts: Tensor,
        num_tokens_left: Tensor,
        rows: Tensor | None = None,
        synthetic: SyntheticAcceptance | None = None,
    ) -> Verified:
        """Accept each request's drafts that equal the tokens sampled in their place, up to the first that does not.

        sampled_ids      [all samples] int64, tokens of the flat samples
        sample_starts    [R] int64, first sample of each request
        num_samples      [R] int64, 1 + real drafts; 0 for a chunk that is not the last. May be fewer than the samples
                         laid out for the request
        drafts           [R, k] int64, the first num_samples - 1 are real; k = 0 is plain decoding
        num_tokens_left  [R] int64, tokens that may still be emitted
        rows             [R] int64, entries of the tables of `synthetic`
        synthetic        None for equality

        Emitted token i of a request belongs to sample sample_starts + i.
        """
