"""Folding per-token hashes of logits into one 64-bit digest per request; host only.

The hash of a row is made on the device (`hash_rows` of the kernels). Order matters here: the digest of two
tokens is not the digest of the same tokens swapped.
"""

_MASK = (1 << 64) - 1


def fold(digest: int, row_hash: int) -> int:
    """The digest after one more emitted token; all values have 64 bits (finaliser of splitmix64)."""
    value = (digest * 0x9E3779B97F4A7C15 + (row_hash & _MASK) + 0x632BE59BD9B4E019) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
