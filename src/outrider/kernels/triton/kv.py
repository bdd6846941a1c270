"""Writes keys and values into the paged cache on a GPU: alone, or after the head norms and rope in one kernel."""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from outrider.kernels.triton.intrinsics import launch_dependents, wait
from outrider.kernels.triton.launch import OVERLAPPED
from outrider.kernels.triton.norm import rms_norm
from outrider.kernels.triton.rope import rotary, rotate


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """k, v [M, Hk, D] -> caches [num_blocks, block_size, Hk, D] at slots [M] int64 (block × block_size + offset).

    Padding tokens share slots of the null block, which no request reads; every other slot occurs once.
    """
    num_tokens, num_heads, head_dim = k.shape
    assert k.shape == v.shape and k.stride(2) == v.stride(2) == 1, "heads of k and v are contiguous"
    assert k_cache.is_contiguous() and v_cache.is_contiguous(), "the caches are contiguous"
    if num_tokens == 0:
        return
    _write_kernel[(num_tokens,)](
        k,
        v,
        k_cache,
        v_cache,
        slots,
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        HEADS=num_heads,
        D=head_dim,
        BLOCK_HEADS=triton.next_power_of_2(num_heads),
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=4,
        **OVERLAPPED,
    )


@triton.jit
def _write_kernel(
    p_k,
    p_v,
    p_k_cache,
    p_v_cache,
    p_slots,
    k_token,
    k_head,
    v_token,
    v_head,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    launch_dependents()
    i_token = tl.program_id(0).to(tl.int64)
    o_head = tl.arange(0, BLOCK_HEADS)[:, None]
    o_d = tl.arange(0, BLOCK_D)[None, :]
    m = (o_head < HEADS) & (o_d < D)
    wait()
    i_slot = tl.load(p_slots + i_token)
    o_cache = i_slot * (HEADS * D) + o_head * D + o_d
    tl.store(p_k_cache + o_cache, tl.load(p_k + i_token * k_token + o_head * k_head + o_d, mask=m), mask=m)
    tl.store(p_v_cache + o_cache, tl.load(p_v + i_token * v_token + o_head * v_head + o_d, mask=m), mask=m)


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

    positions and slots [M] int64, cos_sin [P, R] with R <= D. `norms`: weights [D] of RMSNorm for q and for k, before
    rope. Every rounding is that of rms_norm, rotary and write_kv one after the other. These run instead where only
    a part of the head is rotated, D is not a power of two, or each head of q has a gate.
    """
    num_tokens, num_heads, head_dim = heads.shape
    num_kv_heads = k_cache.shape[2]
    num_q_heads = num_heads - 2 * num_kv_heads
    if has_gates or cos_sin.shape[1] < head_dim or head_dim & (head_dim - 1):
        return _one_after_the_other(
            heads,
            positions,
            cos_sin,
            k_cache,
            v_cache,
            slots,
            norms=norms,
            eps=eps,
            plus_one=plus_one,
            has_gates=has_gates,
        )
    assert heads.stride(2) == 1 and heads.stride(1) == head_dim, "heads of a token are contiguous"
    assert cos_sin.is_contiguous() and cos_sin.shape[1] == head_dim, (
        f"{cos_sin.shape[1]} angles for heads of {head_dim}"
    )
    assert k_cache.is_contiguous() and v_cache.is_contiguous(), "the caches are contiguous"
    q = torch.empty(num_tokens, num_q_heads, head_dim, dtype=heads.dtype, device=heads.device)
    if num_tokens > 0:
        q_norm, k_norm = (heads, heads) if norms is None else norms
        _rotary_and_write_kernel[(num_tokens, triton.cdiv(num_heads, _HEADS))](
            heads,
            positions,
            cos_sin,
            q_norm,
            k_norm,
            q,
            k_cache,
            v_cache,
            slots,
            eps,
            heads.stride(0),
            Q_HEADS=num_q_heads,
            KV_HEADS=num_kv_heads,
            HALF=head_dim // 2,
            HEADS=_HEADS,
            HAS_NORM=norms is not None,
            PLUS_ONE=plus_one,
            num_warps=4,
            **OVERLAPPED,
        )
    return q


def _one_after_the_other(
    heads: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    plus_one: bool,
    has_gates: bool,
) -> Tensor:
    num_kv_heads = k_cache.shape[2]
    q, k, v = heads.split([heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1)
    if has_gates:
        q = q[:, ::2]
    if norms is not None:
        q, k = (rms_norm(x, weight, eps, plus_one=plus_one) for x, weight in zip((q, k), norms, strict=True))
    write_kv(rotary(k, positions, cos_sin), v, k_cache, v_cache, slots)
    return rotary(q, positions, cos_sin)


_HEADS = 16
"""Heads of a token that one program handles."""


@triton.jit
def _rotary_and_write_kernel(
    p_heads,  # [M, Hq + 2 Hk, D]
    p_positions,  # [M] int64
    p_cos_sin,  # [P, D]
    p_q_norm,  # [D]
    p_k_norm,  # [D]
    p_q,  # [M, Hq, D]
    p_k_cache,  # [num_slots, Hk, D]
    p_v_cache,  # [num_slots, Hk, D]
    p_slots,  # [M] int64
    eps,
    stride,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    PLUS_ONE: tl.constexpr,
):
    launch_dependents()
    D: tl.constexpr = 2 * HALF
    i_token = tl.program_id(0).to(tl.int64)
    o_head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    o_half = tl.arange(0, HALF)[None, :]
    m = (o_head < Q_HEADS + 2 * KV_HEADS)[:, None]
    m_q = (o_head < Q_HEADS)[:, None]
    m_v = m & (o_head >= Q_HEADS + KV_HEADS)[:, None]
    m_k = m & ~m_q & ~m_v
    wait()
    p_head = p_heads + i_token * stride + o_head[:, None] * D
    b_first = tl.load(p_head + o_half, mask=m, other=0.0)
    b_second = tl.load(p_head + HALF + o_half, mask=m, other=0.0)
    b_low, b_high = b_first, b_second
    if HAS_NORM:
        # the whole head in one block, so that its squares are added in the order of rms_norm
        b_head = tl.load(p_head + tl.arange(0, D)[None, :], mask=m, other=0.0).to(tl.float32)
        b_scale = tl.math.rsqrt(tl.sum(b_head * b_head, axis=1) / D + eps)[:, None]
        b_low = _normed(b_first, b_scale, p_q_norm, p_k_norm, o_half, m_q, m_k, PLUS_ONE)
        b_high = _normed(b_second, b_scale, p_q_norm + HALF, p_k_norm + HALF, o_half, m_q, m_k, PLUS_ONE)
    p_angle = p_cos_sin + tl.load(p_positions + i_token) * D + o_half
    b_low, b_high = rotate(b_low, b_high, tl.load(p_angle), tl.load(p_angle + HALF))
    p_out = p_q + (i_token * Q_HEADS + o_head)[:, None] * D + o_half
    tl.store(p_out, b_low, mask=m_q)
    tl.store(p_out + HALF, b_high, mask=m_q)
    i_slot = tl.load(p_slots + i_token)
    p_k = p_k_cache + (i_slot * KV_HEADS + o_head - Q_HEADS)[:, None] * D + o_half
    tl.store(p_k, b_low, mask=m_k)
    tl.store(p_k + HALF, b_high, mask=m_k)
    p_v = p_v_cache + (i_slot * KV_HEADS + o_head - Q_HEADS - KV_HEADS)[:, None] * D + o_half
    tl.store(p_v, b_first, mask=m_v)
    tl.store(p_v + HALF, b_second, mask=m_v)


@triton.jit
def _normed(b_x, b_scale, p_q_norm, p_k_norm, o_half, m_q, m_k, PLUS_ONE: tl.constexpr):
    """Half of each head after RMSNorm, rounded where rms_norm rounds."""
    o = o_half + tl.zeros(b_x.shape, tl.int32)
    b_weight = tl.where(m_q, tl.load(p_q_norm + o, mask=m_q), tl.load(p_k_norm + o, mask=m_k)).to(tl.float32)
    b_norm = b_x.to(tl.float32) * b_scale
    if PLUS_ONE:
        b_out = (b_norm * (b_weight + 1.0)).to(b_x.dtype)
    else:
        b_out = (b_norm.to(b_x.dtype).to(tl.float32) * b_weight).to(b_x.dtype)
    return b_out
