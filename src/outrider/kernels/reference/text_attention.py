"""Attention inside each text, in both directions, without a cache.

Every text is computed by itself, with products whose shapes follow its own length: no other text, and no padding, can
change a bit. A layer with a window computes blocks of queries against the keys that any of them sees.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from outrider.kernels.interface.cache import DeviceCounts
from outrider.kernels.reference.host_counts import host_counts

_QUERIES = 128
"""Queries of one block under a window."""


@dataclass(frozen=True, slots=True)
class TextPlan:
    """Places of the texts in the flat batch."""

    texts: tuple[slice, ...]  # tokens of each text, padding left out


def plan_texts(kv_lengths: Tensor, row_counts: tuple[int, ...] | DeviceCounts) -> TextPlan:
    """kv_lengths [M] int64 (0: padding), tokens of each row. Reads the lengths on the host."""
    lengths = kv_lengths.tolist()
    texts, start = [], 0
    for count in host_counts(row_counts):
        length = max(lengths[start : start + count], default=0)
        own = lengths[start : start + length]
        assert own == list(range(1, length + 1)), f"a row is a whole text, and its places are {own[:3]}…"
        if length:
            texts.append(slice(start, start + length))
        start += count
    return TextPlan(tuple(texts))


def text_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: TextPlan, *, scale: float, window: int | None = None
) -> Tensor:
    """q [M, H, D], k and v [M, G, D], H a multiple of G -> [M, H, D], computed in fp32.

    window: odd number of tokens that a token sees.
    """
    sharing = q.shape[1] // k.shape[1]
    if sharing > 1:
        k, v = k.repeat_interleave(sharing, dim=1), v.repeat_interleave(sharing, dim=1)
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for text in plan.texts:
        heads = [x[text].float().transpose(0, 1).contiguous() for x in (q, k, v)]  # [H, L, D]
        out[text] = _attend(*heads, scale=scale, window=window).transpose(0, 1)
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
    """One text: q, k, v [H, L, D] -> [H, L, D]."""
    length = q.shape[1]
    if window is None or length <= window // 2 + 1:
        return scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0]
    reach = window // 2
    blocks = []
    for start in range(0, length, _QUERIES):
        stop = min(start + _QUERIES, length)
        first, last = max(0, start - reach), min(length, stop + reach)
        distance = torch.arange(start, stop)[:, None] - torch.arange(first, last)
        sees = (distance.abs() <= reach).to(q.device)
        keys, values = k[None, :, first:last].contiguous(), v[None, :, first:last].contiguous()
        queries = q[None, :, start:stop].contiguous()
        blocks.append(scaled_dot_product_attention(queries, keys, values, attn_mask=sees, scale=scale)[0])
    return torch.cat(blocks, dim=1)
