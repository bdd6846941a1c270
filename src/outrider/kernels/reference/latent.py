"""Latent attention on rows: a product for each head, the write of rows, and attention over them.

Attention over rows is attention of all heads over one key head, whose values are the leading part of its keys; so it is
`paged_attention` with a view of the cache, and has its exactness.
"""

import torch
from torch import Tensor

from outrider.kernels.reference.attention import AttentionPlan, paged_attention
from outrider.kernels.reference.linear import linear
from outrider.kernels.reference.norm import rms_norm
from outrider.kernels.reference.rope import cos_and_sin, turned


def project_heads(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, H, K], weight [H, N, K] in any layout -> [M, H, N], one product for each head."""
    return torch.stack([linear(x[:, head], weight[head]) for head in range(weight.shape[0])], dim=1)


def rotary_and_write_latent(
    q: Tensor,
    latent: Tensor,
    norm: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    cache: Tensor,
    slots: Tensor,
    *,
    eps: float,
    is_interleaved: bool,
) -> Tensor:
    """q [M, H, S], latent [M, R + S], norm [R] -> rotated q [M, H, S]; rows go to the cache [num_blocks, block_size,
    R + S] at slots [M] int64. With `is_interleaved`, element 2i is moved to i and 2i + 1 to S / 2 + i before."""
    rank = norm.shape[0]
    normed, rotated = rms_norm(latent[:, :rank], norm, eps), latent[:, None, rank:]
    if is_interleaved:
        q, rotated = (torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1) for x in (q, rotated))
    cos, sin = cos_and_sin(cos_sin, positions, q.dtype)
    rows = torch.cat([normed, turned(rotated, cos, sin)[:, 0]], dim=1)
    cache.view(-1, cache.shape[2]).index_copy_(0, slots, rows)
    return turned(q, cos, sin)


def latent_attention(
    q: Tensor, cache: Tensor, plan: AttentionPlan, *, rank: int, scale: float, kv_start: int = 0
) -> Tensor:
    """q [M, H, R + S], cache [num_blocks, block_size, R + S] -> [M, H, R], computed in fp32."""
    rows = cache.unsqueeze(2)
    return paged_attention(q, rows, rows[..., :rank], plan, scale=scale, kv_start=kv_start)
