"""Choosing tokens: the target's, and a drafter's under the same noise."""

import torch
from torch import Tensor

from outrider.kernels.reference.sampling.logits_processors import change_rows
from outrider.kernels.reference.sampling.noise import gumbel, gumbel_at
from outrider.kernels.reference.sampling.row_max import below_max
from outrider.kernels.reference.sampling.sort_keys import finite
from outrider.kernels.reference.sampling.topk_topp import truncate


def choose(
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
    """A token for each row: [num_rows] int64 of processed logits [num_rows, vocab_size] fp32.

    rows [num_rows] int64 say which entry of the columns [N] belongs to a row: temperature, top_p, min_p fp32, top_k,
    seeds, completion_indices int64. positions [num_rows] int64, of the token produced. Rows of temperature 0 take the
    first token in order; for the others, `truncate` defines the tokens that are kept, and the noise of (seed,
    completion index, position) selects one of them. The index lists only save work, as in `process`.
    """
    logits = finite(logits)
    token_ids = argmax(logits)
    if random_index is None:
        return token_ids

    # A greedy row that is listed divides by 1 and gets no noise.
    own_temperature = temperature[rows]
    scaled = below_max(logits) / torch.where(own_temperature > 0, own_temperature, 1.0).unsqueeze(1)

    def truncate_rows(scaled: Tensor, index: Tensor) -> Tensor:
        own = rows[index]
        return truncate(logits[index], scaled, top_k=top_k[own], top_p=top_p[own], min_p=min_p[own])

    scaled = change_rows(scaled, truncation_index, truncate_rows)
    index = random_index
    own = rows[index]
    noise = gumbel(seeds[own], completion_indices[own], positions[index], logits.shape[1])
    noise = torch.where((own_temperature[index] > 0).unsqueeze(1), noise, 0.0)
    return token_ids.index_copy(0, index, argmax(scaled[index] + noise))


def argmax(values: Tensor) -> Tensor:
    """The lowest id among the largest values: [num_rows] int64 of [num_rows, vocab_size] without NaN.

    `torch.argmax` promises no order on ties. A row of -inf only gives 0.
    """
    vocab_size = values.shape[1]
    ids = torch.arange(vocab_size, device=values.device)
    is_best = values == values.amax(dim=1, keepdim=True)
    return torch.where(is_best, ids, vocab_size).amin(dim=1)


def draft_choose(
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
    """Target ids of drafts, [num_rows] int64: argmax of logits / temperature + the target's own noise.

    logits [num_rows, draft_vocab_size] fp32, target_ids [draft_vocab_size] int64; rows, positions and the columns as in
    `choose`. Rows of temperature 0 use neither temperature nor noise. Ties go to the lower place in the draft
    vocabulary.
    """
    logits = finite(logits)
    if not has_random_rows:
        return target_ids[argmax(logits)]
    own_temperature = temperature[rows].unsqueeze(1)
    is_greedy = own_temperature <= 0
    noise = gumbel_at(seeds[rows], completion_indices[rows], positions, target_ids)
    noisy = finite(logits / torch.where(is_greedy, 1.0, own_temperature) + noise)
    return target_ids[argmax(torch.where(is_greedy, logits, noisy))]
