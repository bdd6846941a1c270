"""A hash of the bits of each row of logits."""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FACTOR_A = 0xBF58476D1CE4E5B9
_FACTOR_B = 0x94D049BB133111EB
"""The constants of splitmix64."""


def hash_rows(logits: Tensor) -> Tensor:
    """One hash of the bits of each row: [num_rows] int64 of [num_rows, vocab_size] fp32.

    Every (column, 32 bits) pair is mixed (splitmix64) and the results are added modulo 2^64, so the order of
    summation does not matter. A change of one logit always changes the hash; any other change, such as two columns
    swapped, does except with probability 2^-64. 0.0 and -0.0 differ, and so do NaNs of different payload.
    """
    columns = torch.arange(logits.shape[1], device=logits.device)
    bits = logits.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    return _mix(_mix((bits | (columns << 32)) ^ _signed(_GOLDEN)).sum(dim=1) + logits.shape[1])


def _mix(words: Tensor) -> Tensor:
    words = (words ^ _shift_right(words, 30)) * _signed(_FACTOR_A)
    words = (words ^ _shift_right(words, 27)) * _signed(_FACTOR_B)
    return words ^ _shift_right(words, 31)


def _shift_right(words: Tensor, count: int) -> Tensor:
    """Logical shift of int64 words."""
    return (words >> count) & ((1 << (64 - count)) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word
