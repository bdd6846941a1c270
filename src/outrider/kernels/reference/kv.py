"""Writes keys and values into the paged cache, alone or after the head norms and the rotation."""

from torch import Tensor

from outrider.kernels.reference.norm import rms_norm
from outrider.kernels.reference.rope import cos_and_sin, turned


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """k, v [M, Hk, D] -> caches [num_blocks, block_size, Hk, D] at slots [M] int64 (block × block_size + offset).

    Padding tokens share slots of the null block, which no request reads; every other slot occurs once.
    """
    k_cache.view(-1, *k_cache.shape[2:]).index_copy_(0, slots, k)
    v_cache.view(-1, *v_cache.shape[2:]).index_copy_(0, slots, v)


def rotary_and_write_kv(
    heads: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 0.0,
    plus_one: bool = False,
    has_gates: bool = False,
) -> Tensor:
    """heads [M, Hq + 2 Hk, D], q then k then v -> rotated q [M, Hq, D]; rotated k, and v, go to the caches.

    `norms`: weights [D] of an RMSNorm of each head of q and of k, before the rotation; they have the flag `plus_one`.
    `has_gates`: each head of q is followed by its gate, which is not changed: heads [M, 2 Hq + 2 Hk, D].
    """
    num_kv_heads = k_cache.shape[2]
    q, k, v = heads.split([heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1)
    if has_gates:
        q = q[:, ::2]
    if norms is not None:
        q, k = (rms_norm(x, weight, eps, plus_one=plus_one) for x, weight in zip((q, k), norms, strict=True))
    cos, sin = cos_and_sin(cos_sin, positions, heads.dtype)
    write_kv(turned(k, cos, sin), v, k_cache, v_cache, slots)
    return turned(q, cos, sin)
