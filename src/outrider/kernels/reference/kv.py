"""Writing keys and values into the paged cache."""

from torch import Tensor


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """k, v [M, Hk, D] -> caches [num_blocks, block_size, Hk, D] at slots [M] int64 (block × block_size + offset).

    Padding tokens share slots of the null block, which nobody reads; every other slot occurs once.
    """
    k_cache.view(-1, *k_cache.shape[2:]).index_copy_(0, slots, k)
    v_cache.view(-1, *v_cache.shape[2:]).index_copy_(0, slots, v)
