"""The tokens that min_p, top_k and top_p keep, by sorting the vocabulary."""

import torch
from torch import Tensor

from outrider.kernels.reference.sampling.row_prefix import is_within
from outrider.kernels.reference.sampling.sort_keys import order_keys

_MASS_BITS = 40
"""Top-p masses are integers in units of 2^-40 of the most likely token's: 2^22 of them fit into an int64."""


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
    is_kept = is_within(limit, vocab_size) & (sorted_scaled >= torch.log(min_p).unsqueeze(1))

    weights = (torch.exp(sorted_scaled) * 2.0**_MASS_BITS).to(torch.int64)
    mass = torch.where(is_kept, weights, 0)
    mass_before = mass.cumsum(dim=1) - mass
    mass_needed = torch.ceil(top_p.to(torch.float64) * mass.sum(dim=1).to(torch.float64)).to(torch.int64)
    is_kept &= (mass_before < mass_needed.unsqueeze(1)) | (top_p >= 1.0).unsqueeze(1)

    num_kept = is_kept.sum(dim=1, keepdim=True).clamp(min=1)
    last_key = sorted_keys.gather(1, num_kept - 1)
    return torch.where(keys >= last_key, scaled, -torch.inf)
