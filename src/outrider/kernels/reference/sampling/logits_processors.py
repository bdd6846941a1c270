"""Changes of logits before a token is chosen: bias, penalties, forbidden tokens."""

from collections.abc import Callable

import torch
from torch import Tensor

from outrider.kernels.reference.sampling.row_prefix import is_within
from outrider.kernels.reference.sampling.sort_keys import finite

_LARGEST = torch.finfo(torch.float32).max


def process(
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
    """Apply to logits [num_rows, vocab_size] fp32 every change before temperature, in the order of the index lists.

    For each row: rows, its entry in the tables; offsets, drafts that count as accepted; lengths, tokens before the one
    produced; all [num_rows] int64; drafts [num_rows, k] int64. The other tensors are tables of N entries, as
    `SamplingTable` lays them out, and token_ids [N, max_tokens] int32 of the request table, needed for bad words.
    The index lists only save work: a row that is listed without need keeps its bits. An implementation may read on the
    device which rows need a change, and then only checks whether a list was passed.
    """

    def add_biases(logits: Tensor, index: Tensor) -> Tensor:
        own = rows[index]
        return add_bias(logits, logit_bias_ids[own], logit_bias[own], num_logit_bias[own])

    def forbid_stop_ids(logits: Tensor, index: Tensor) -> Tensor:
        own = rows[index]
        is_early = lengths[index] < min_length[own]
        return forbid(logits, stop_token_ids[own], num_stop_token_ids[own] * is_early)

    def penalize_rows(logits: Tensor, index: Tensor) -> Tensor:
        own = rows[index]
        return penalize(
            logits,
            count_drafts(output_counts[own], drafts[index], offsets[index]),
            prompt_mask[own],
            repetition=repetition[own],
            presence=presence[own],
            frequency=frequency[own],
        )

    def allow(logits: Tensor, index: Tensor) -> Tensor:
        return apply_mask(logits, allowed[rows[index]])

    def forbid_bad_words(logits: Tensor, index: Tensor) -> Tensor:
        assert token_ids is not None, "bad words need the tokens before them"
        own = rows[index]
        tails = output_tails(
            token_ids[own],
            drafts[index],
            offsets=offsets[index],
            lengths=lengths[index],
            num_prompt_tokens=num_prompt_tokens[own],
            width=bad_words.shape[2] - 1,
        )
        return forbid_words(logits, tails, bad_words[own], num_bad_words[own])

    logits = finite(logits)
    logits = change_rows(logits, bias_index, add_biases)
    logits = change_rows(logits, min_tokens_index, forbid_stop_ids)
    logits = change_rows(logits, penalty_index, penalize_rows)
    logits = change_rows(logits, allowed_index, allow)
    return change_rows(logits, bad_words_index, forbid_bad_words)


def add_bias(logits: Tensor, ids: Tensor, values: Tensor, counts: Tensor) -> Tensor:
    """logits + values at ids.

    ids [num_rows, max_ids] int64 (any id in [0, vocab_size) beyond the count), values [num_rows, max_ids] fp32,
    counts [num_rows] int64: valid entries of the row. Valid ids are unique, so at most one number
    other than 0 is added anywhere. A sum above the largest fp32 stays there.
    """
    values = torch.where(is_within(counts, ids.shape[1]), values, 0.0)
    return logits.scatter_add(1, ids, values).clamp(max=_LARGEST)


def forbid(logits: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """-inf at the first `counts` ([num_rows] int64) of `ids` ([num_rows, max_ids] int64) of each row."""
    limits = torch.where(is_within(counts, ids.shape[1]), -torch.inf, torch.inf)
    return logits.scatter_reduce(1, ids, limits, reduce="amin")


def apply_mask(logits: Tensor, words: Tensor) -> Tensor:
    """-inf at every token whose bit is 0: token t is bit t % 32 of word t // 32.

    words [num_rows, ceil(vocab_size / 32)] int32.
    """
    return logits.masked_fill(_is_forbidden(words, logits.shape[1]), -torch.inf)


def apply_masks(logits: Tensor, words: Tensor, of_sample: Tensor, *, in_place: bool) -> Tensor:
    """`apply_mask` with the mask `of_sample` ([num_rows] int64) of `words` ([number, words] int32); -1: none."""
    is_forbidden = _is_forbidden(words[of_sample.clamp(min=0)], logits.shape[1]) & (of_sample >= 0).unsqueeze(1)
    return logits.masked_fill_(is_forbidden, -torch.inf) if in_place else logits.masked_fill(is_forbidden, -torch.inf)


def _is_forbidden(words: Tensor, vocab_size: int) -> Tensor:
    """[num_rows, vocab_size] bool of masks [num_rows, words] int32."""
    bits = torch.arange(32, dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(2) >> bits) & 1).flatten(1)[:, :vocab_size] == 0


def output_tails(
    token_ids: Tensor, drafts: Tensor, *, offsets: Tensor, lengths: Tensor, num_prompt_tokens: Tensor, width: int
) -> Tensor:
    """The last `width` output tokens before the one produced, -1 where the output has not begun: int64.

    token_ids [num_rows, max_tokens] int32, of which lengths - offsets are known; the first `offsets` of drafts
    [num_rows, k] int64 count as accepted after them. offsets, lengths, num_prompt_tokens: [num_rows] int64.
    """
    place = lengths.unsqueeze(1) - width + torch.arange(width, device=lengths.device)
    known = token_ids.gather(1, place.clamp(0, token_ids.shape[1] - 1)).to(torch.int64)
    if drafts.shape[1]:
        draft_index = place - (lengths - offsets).unsqueeze(1)
        known = torch.where(draft_index >= 0, drafts.gather(1, draft_index.clamp(0, drafts.shape[1] - 1)), known)
    return torch.where(place >= num_prompt_tokens.unsqueeze(1), known, -1)


def forbid_words(logits: Tensor, tails: Tensor, words: Tensor, counts: Tensor) -> Tensor:
    """-inf at the last token of each word whose other tokens end the row's tail.

    tails [num_rows, width] int64 (`output_tails`); words [num_rows, max_words, width + 1] int32, at the right, -1 in
    front of shorter ones; counts [num_rows] int64: valid words of the row.
    """
    heads = words[:, :, :-1]
    is_begun = ((heads == tails.unsqueeze(1)) | (heads < 0)).all(dim=2)
    limits = torch.where(is_begun & is_within(counts, words.shape[1]), -torch.inf, torch.inf)
    return logits.scatter_reduce(1, words[:, :, -1].to(torch.int64).clamp(min=0), limits, reduce="amin")


def penalize(
    logits: Tensor,
    counts: Tensor,
    prompt_mask: Tensor,
    *,
    repetition: Tensor,
    presence: Tensor,
    frequency: Tensor,
) -> Tensor:
    """Repetition, frequency and presence penalties, in this order, as vLLM defines them.

    counts [num_rows, vocab_size] int32: occurrences in the output; prompt_mask likewise, bool: is in the prompt;
    repetition, presence, frequency [num_rows] fp32. A result above the largest fp32 stays there.
    """
    repetition = repetition.unsqueeze(1)
    is_output = counts > 0
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
    logits = torch.where(is_output | prompt_mask, repeated, logits)
    logits = logits - frequency.unsqueeze(1) * counts
    return (logits - presence.unsqueeze(1) * is_output).clamp(max=_LARGEST)


def count_drafts(counts: Tensor, drafts: Tensor, offsets: Tensor) -> Tensor:
    """counts [num_rows, vocab_size] int32 with the first `offsets` ([num_rows] int64) drafts of each row added.

    drafts [num_rows, k] int64 in [0, vocab_size); a draft that occurs twice counts twice.
    """
    return counts.scatter_add(1, drafts, is_within(offsets, drafts.shape[1]).to(counts.dtype))


def change_rows(values: Tensor, index: Tensor | None, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`values` with the listed rows put through `change(values[index], index)`; the others keep their bits."""
    return values if index is None else values.index_copy(0, index, change(values[index], index))
