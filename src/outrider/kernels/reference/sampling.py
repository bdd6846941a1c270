"""What the sampler does to rows of logits, in plain PyTorch. Knows tensors only, nothing of requests.

Each row's result is the same bits in any batch and on any number of threads. So the only floating-point sum
over a row is `row_sum`, a fixed tree; maxima, integer sums and element-wise work cannot depend on an order.
(On a CPU exp, log and log1p of torch give equal bits wherever an element stands; silu and sigmoid do not.)

The order of tokens is (logit descending, id ascending) everywhere.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

_LARGEST = torch.finfo(torch.float32).max
_MASS_BITS = 40
"""Top-p masses are integers in units of 2^-40 of the most likely token's: 2^22 of them fit an int64."""


def finite(logits: Tensor) -> Tensor:
    """Logits that can be ordered and subtracted: NaN becomes -inf, +inf the largest fp32; -inf stays.

    logits: [num_rows, vocab_size] fp32; the result is a new tensor of this shape.
    """
    return torch.nan_to_num(logits, nan=-torch.inf, posinf=_LARGEST, neginf=-torch.inf)


def argmax(values: Tensor) -> Tensor:
    """The lowest id among the largest values: [num_rows] int64 of [num_rows, vocab_size] without NaN.

    `torch.argmax` promises no order on ties. A row of -inf only gives 0.
    """
    vocab_size = values.shape[1]
    ids = torch.arange(vocab_size, device=values.device)
    is_best = values == values.amax(dim=1, keepdim=True)
    return torch.where(is_best, ids, vocab_size).amin(dim=1)


def order_keys(logits: Tensor) -> Tensor:
    """Unique int64 keys whose descending order is (logit descending, id ascending).

    logits: [num_rows, vocab_size] fp32 without NaN. The upper 32 bits are the logit's bits, made monotonic; the
    lower ones count the ids down. Adding 0.0 makes -0.0 equal to 0.0.
    """
    bits = (logits + 0.0).view(torch.int32)
    monotonic = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    vocab_size = logits.shape[1]
    return monotonic * 2**32 + (vocab_size - 1 - torch.arange(vocab_size, device=logits.device))


def top(logits: Tensor, count: int) -> Tensor:
    """The first `count` ids of each row in order: [num_rows, count] int64; count <= vocab_size."""
    return order_keys(logits).topk(count, dim=1).indices


def ranks(logits: Tensor, token_ids: Tensor) -> Tensor:
    """1 + the number of tokens before `token_ids` ([num_rows] int64) in order: [num_rows] int64."""
    ids = torch.arange(logits.shape[1], device=logits.device)
    chosen = logits.gather(1, token_ids.unsqueeze(1))
    is_before = (logits > chosen) | ((logits == chosen) & (ids < token_ids.unsqueeze(1)))
    return is_before.sum(dim=1) + 1


def row_sum(values: Tensor) -> Tensor:
    """Sum of each row, [num_rows, 1], by halving: the row is padded with zeros to a power of two and folded.

    The additions and their order depend on the row's length only. `torch.sum` and `torch.logsumexp` over a long
    row are split by threads on a CPU.
    """
    width = 1 << (values.shape[1] - 1).bit_length()
    values = pad(values, (0, width - values.shape[1]))
    while width > 1:
        width //= 2
        values = values[:, :width] + values[:, width:]
    return values


def below_max(logits: Tensor) -> Tensor:
    """logits - max of the row, for logits below +inf; a row of -inf only stays as it is.

    The sign of a zero, which a maximum leaves open, is lost in adding 0.0.
    """
    largest = logits.amax(dim=1, keepdim=True)
    return logits - torch.where(largest == -torch.inf, 0.0, largest) + 0.0


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities, [num_rows, vocab_size] fp32; -inf stays -inf, also where a row has nothing else."""
    shifted = below_max(logits)
    return torch.where(shifted == -torch.inf, shifted, shifted - torch.log(row_sum(torch.exp(shifted))))


def add_bias(logits: Tensor, ids: Tensor, values: Tensor, counts: Tensor) -> Tensor:
    """logits + values at ids.

    ids [num_rows, max_ids] int64 (any id in [0, vocab_size) beyond the count), values [num_rows, max_ids] fp32,
    counts [num_rows] int64: entries of the row that hold. The ids that hold are unique, so at most one number
    other than 0 is added anywhere. A sum above the largest fp32 stays there.
    """
    values = torch.where(_is_within(counts, ids.shape[1]), values, 0.0)
    return logits.scatter_add(1, ids, values).clamp(max=_LARGEST)


def forbid(logits: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """-inf at the first `counts` ([num_rows] int64) of `ids` ([num_rows, max_ids] int64) of each row."""
    limits = torch.where(_is_within(counts, ids.shape[1]), -torch.inf, torch.inf)
    return logits.scatter_reduce(1, ids, limits, reduce="amin")


def apply_mask(logits: Tensor, words: Tensor) -> Tensor:
    """-inf at every token whose bit is 0: token t is bit t % 32 of word t // 32.

    words [num_rows, ceil(vocab_size / 32)] int32.
    """
    bits = torch.arange(32, dtype=torch.int32, device=logits.device)
    is_allowed = ((words.unsqueeze(2) >> bits) & 1).view(words.shape[0], -1)[:, : logits.shape[1]]
    return logits.masked_fill(is_allowed == 0, -torch.inf)


def output_tails(
    token_ids: Tensor, drafts: Tensor, *, offsets: Tensor, lengths: Tensor, num_prompt_tokens: Tensor, width: int
) -> Tensor:
    """The last `width` output tokens before the one produced, -1 where the output has not begun: int64.

    token_ids [num_rows, max_tokens] int32, of which lengths - offsets are known; the first `offsets` of drafts
    [num_rows, k] int64 count as accepted behind them. offsets, lengths, num_prompt_tokens: [num_rows] int64.
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
    front of shorter ones; counts [num_rows] int64: words of the row that hold.
    """
    heads = words[:, :, :-1]
    is_begun = ((heads == tails.unsqueeze(1)) | (heads < 0)).all(dim=2)
    limits = torch.where(is_begun & _is_within(counts, words.shape[1]), -torch.inf, torch.inf)
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
    return counts.scatter_add(1, drafts, _is_within(offsets, drafts.shape[1]).to(counts.dtype))


def truncate(logits: Tensor, scaled: Tensor, *, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """`scaled` with -inf at every token that min_p, top_k or top_p removes.

    logits [num_rows, vocab_size] fp32 give the order of tokens; scaled, likewise, is `below_max(logits) / T`.
    top_k [num_rows] int64 (0 or less, or more than there are: keeps all), top_p, min_p [num_rows] fp32.

    All three keep a prefix of the order. min_p keeps scaled >= log(min_p); top_k keeps k tokens, ties included in
    the count; top_p keeps the shortest prefix of what is left whose mass reaches top_p of it, at least one token.
    Masses are integers, so no sum depends on an order.
    """
    vocab_size = logits.shape[1]
    keys = order_keys(logits)
    sorted_keys, order = keys.sort(dim=1, descending=True)
    sorted_scaled = scaled.gather(1, order)

    limit = torch.where(top_k > 0, top_k, vocab_size)
    is_kept = _is_within(limit, vocab_size) & (sorted_scaled >= torch.log(min_p).unsqueeze(1))

    weights = (torch.exp(sorted_scaled) * 2.0**_MASS_BITS).to(torch.int64)
    mass = torch.where(is_kept, weights, 0)
    mass_before = mass.cumsum(dim=1) - mass
    mass_needed = torch.ceil(top_p.to(torch.float64) * mass.sum(dim=1).to(torch.float64)).to(torch.int64)
    is_kept &= (mass_before < mass_needed.unsqueeze(1)) | (top_p >= 1.0).unsqueeze(1)

    num_kept = is_kept.sum(dim=1, keepdim=True).clamp(min=1)
    last_key = sorted_keys.gather(1, num_kept - 1)
    return torch.where(keys >= last_key, scaled, -torch.inf)


def _is_within(counts: Tensor, width: int) -> Tensor:
    """[num_rows, width] bool: True in the first `counts` columns of each row."""
    return torch.arange(width, device=counts.device) < counts.unsqueeze(1)
