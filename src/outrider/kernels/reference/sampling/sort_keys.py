"""The order of tokens, (logit descending, id ascending), as integers that can be sorted."""

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.float32).max


def finite(logits: Tensor) -> Tensor:
    """Logits that can be ordered and subtracted: NaN becomes -inf, +inf the largest fp32; -inf stays.

    logits: [num_rows, vocab_size] fp32; the result is a new tensor of this shape.
    """
    return torch.nan_to_num(logits, nan=-torch.inf, posinf=_LARGEST, neginf=-torch.inf)


def order_keys(logits: Tensor) -> Tensor:
    """Unique int64 keys whose descending order is (logit descending, id ascending).

    logits: [num_rows, vocab_size] fp32 without NaN. The upper 32 bits are the logit's bits, made monotonic; the
    lower ones count the ids down. Adding 0.0 makes -0.0 equal to 0.0.
    """
    bits = (logits + 0.0).view(torch.int32)
    monotonic = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    vocab_size = logits.shape[1]
    return monotonic * 2**32 + (vocab_size - 1 - torch.arange(vocab_size, device=logits.device))
