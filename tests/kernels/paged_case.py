"""Random requests in a paged cache: blocks in random order, everything else full of NaN."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.kernels import load_kernels

KERNELS = load_kernels(("reference",))
NAN = float("nan")


class PagedCase:
    """Requests of given lengths whose q, k and v are known for every position."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        num_heads: int = 4,
        num_kv_heads: int = 2,
        head_dim: int = 16,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = list(lengths)
        self.block_size = block_size

        def heads(count: int) -> list[Tensor]:
            return [torch.randn(n, count, head_dim, generator=generator).to(dtype) for n in lengths]

        self.q, self.k, self.v = heads(num_heads), heads(num_kv_heads), heads(num_kv_heads)
        self.q = [2 * q for q in self.q]
        num_blocks = [-(-n // block_size) for n in lengths]
        free = list(range(1, sum(num_blocks) + 4))
        random.Random(seed).shuffle(free)
        self.blocks = [[free.pop() for _ in range(count)] for count in num_blocks]
        offsets = torch.arange(block_size)
        self.slots = [(torch.tensor(blocks)[:, None] * block_size + offsets).flatten() for blocks in self.blocks]
        self.shape = (sum(num_blocks) + 4, block_size, num_kv_heads, head_dim)

    def caches(self, known: Sequence[int]) -> tuple[Tensor, Tensor]:
        """K and V with the first `known[i]` positions of request i; all other slots are NaN."""
        caches = [torch.full(self.shape, NAN, dtype=self.q[0].dtype) for _ in range(2)]
        for values, cache in zip((self.k, self.v), caches, strict=True):
            flat = cache.view(-1, *self.shape[2:])
            for request, count in enumerate(known):
                flat[self.slots[request][:count]] = values[request][:count]
        return caches[0], caches[1]

    def attend(
        self,
        rows: Sequence[tuple[int, int, int]],
        *,
        num_padding: int = 0,
        extra_bound: int = 0,
        known: Sequence[int] | None = None,
        **options: object,
    ) -> list[Tensor]:
        """One call. rows: (request, start, stop) in positions; gives [stop - start, heads, head_dim] of each."""
        if known is None:
            known = [max((stop for r, _, stop in rows if r == i), default=0) for i in range(len(self.lengths))]
        k_cache, v_cache = self.caches(known)
        width = max(len(self.blocks[request]) for request, _, _ in rows)
        tables = [self.blocks[request] + [0] * (width - len(self.blocks[request])) for request, _, _ in rows]
        lengths = [position + 1 for _, start, stop in rows for position in range(start, stop)]
        counts = [stop - start for _, start, stop in rows]
        counts[-1] += num_padding
        q = torch.cat([self.q[request][start:stop] for request, start, stop in rows])
        q = torch.cat([q, torch.full((num_padding, *q.shape[1:]), NAN, dtype=q.dtype)])
        plan = KERNELS.plan_attention(
            torch.tensor(tables, dtype=torch.int32),
            torch.tensor(lengths + [0] * num_padding),
            row_counts=tuple(counts),
            kv_length_bound=max(lengths) + extra_bound,
        )
        scale = q.shape[-1] ** -0.5
        out = KERNELS.paged_attention(q, k_cache, v_cache, plan, scale=scale, **options)
        again = KERNELS.paged_attention(q, k_cache, v_cache, plan, scale=scale, **options)
        assert torch.equal(out[: len(lengths)], again[: len(lengths)]), "the plan changed between layers"
        self.padding = out[len(lengths) :]
        return list(out[: len(lengths)].split([stop - start for _, start, stop in rows]))
