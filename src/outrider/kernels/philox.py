"""Philox-4x32-10, the random words behind all noise, in plain PyTorch.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Random123). Knows nothing of what
the words are for.
"""

from torch import Tensor

NUM_ROUNDS = 10
_WORD = 0xFFFFFFFF
_ROUND_A = 0xD2511F53
_ROUND_B = 0xCD9E8D57
_KEY_A = 0x9E3779B9
_KEY_B = 0xBB67AE85


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four random words for each counter and key.

    All tensors are int64 with values in [0, 2^32); their shapes broadcast, and so do the four results.
    A product of two words is read from the 64 bits of an int64 product, which wraps.
    """
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(NUM_ROUNDS):
        product_a = word_0 * _ROUND_A
        product_b = word_2 * _ROUND_B
        word_0 = ((product_b >> 32) & _WORD) ^ word_1 ^ key_0
        word_1 = product_b & _WORD
        word_2 = ((product_a >> 32) & _WORD) ^ word_3 ^ key_1
        word_3 = product_a & _WORD
        key_0 = (key_0 + _KEY_A) & _WORD
        key_1 = (key_1 + _KEY_B) & _WORD
    return word_0, word_1, word_2, word_3
