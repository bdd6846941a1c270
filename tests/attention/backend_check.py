"""Checks of one attention backend on one device: against the formula in double precision, and bit by bit.

Knows only the contract of a backend (`AttentionBackend`): a new file in `attention/backends` needs no test of its own.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from outrider.attention.base import AttentionBackend
from outrider.attention.batch import ForwardBatch, GroupBatch
from outrider.attention.caches.latent import Latent
from outrider.attention.caches.paged_kv import PagedKV

BLOCK_SIZE = 16
LENGTHS = (70, 1, 33, 150)
NUM_HEADS = 4
LIMITS = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
"""Largest relative RMS error by dtype of the cache."""


class Requests:
    """Random q, k and v of some requests, and a cache with their K and V in blocks of random order."""

    def __init__(self, spec: PagedKV, device: torch.device) -> None:
        self.spec = spec
        generator = torch.Generator().manual_seed(3)

        def heads(count: int, width: int) -> list[Tensor]:
            made = (torch.randn(length, count, width, generator=generator) for length in LENGTHS)
            return [values.to(device, spec.dtype) for values in made]

        self.q = [2 * q for q in heads(NUM_HEADS, spec.head_dim)]
        self.k, self.v = heads(spec.num_kv_heads, spec.head_dim), heads(spec.num_kv_heads, spec.value_dim)
        counts = [-(-length // BLOCK_SIZE) for length in LENGTHS]
        free = list(range(1, sum(counts) + 3))
        random.Random(0).shuffle(free)
        self.blocks = [[free.pop() for _ in range(count)] for count in counts]
        self.cache = spec.allocate(sum(counts) + 3, block_size=BLOCK_SIZE, group=0, device=device)
        for part in (self.cache.k, self.cache.v):
            part.fill_(float("nan"))
        for request, blocks in enumerate(self.blocks):
            for index in range(LENGTHS[request]):
                place = blocks[index // BLOCK_SIZE], index % BLOCK_SIZE
                self.cache.k[place], self.cache.v[place] = self.k[request][index], self.v[request][index]

    def attend(
        self, backend: AttentionBackend, rows: Sequence[tuple[int, int, int]], *, kv_start: int = 0, **options: object
    ) -> list[Tensor]:
        """One pass; rows (request, start, stop) in positions. Gives [stop - start, heads, value_dim] of each row."""
        device = self.q[0].device
        positions = torch.cat([torch.arange(start, stop) for _, start, stop in rows]).to(device)
        width = max(len(self.blocks[request]) for request, _, _ in rows)
        tables = [self.blocks[request] + [0] * (width - len(self.blocks[request])) for request, _, _ in rows]
        batch = ForwardBatch(
            token_ids=torch.zeros_like(positions),
            positions=positions,
            kv_lengths=positions + 1,
            groups={0: GroupBatch(torch.tensor(tables, dtype=torch.int32, device=device), torch.zeros_like(positions))},
            row_counts=tuple(stop - start for _, start, stop in rows),
            kv_length_bound=max(stop for _, _, stop in rows),
            kv_start=kv_start,
        )
        q = torch.cat([self.q[request][start:stop] for request, start, stop in rows])
        scale = self.spec.head_dim**-0.5
        out = backend.attend(q, self.cache, batch, backend.begin(batch), scale=scale, **options)
        assert out.shape == (len(q), NUM_HEADS, self.spec.value_dim) and out.dtype == self.spec.dtype
        return list(out.split(list(batch.row_counts)))

    def expected(
        self, request: int, *, kv_start: int = 0, window: int | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        """The formula, one token and head at a time, [length, heads, value_dim] fp64."""
        q, k, v = (parts[request].double().cpu() for parts in (self.q, self.k, self.v))
        out = torch.zeros(len(q), NUM_HEADS, self.spec.value_dim, dtype=torch.float64)
        for t in range(len(q)):
            first = max(kv_start, t + 1 - window if window else 0)
            for head in range(NUM_HEADS if first <= t else 0):
                kv_head = head * self.spec.num_kv_heads // NUM_HEADS
                logits = k[first : t + 1, kv_head] @ q[t, head] * self.spec.head_dim**-0.5
                if sinks is not None:
                    logits = torch.cat([logits, sinks[head].double().cpu()[None]])
                out[t, head] = logits.softmax(0)[: t + 1 - first] @ v[first : t + 1, kv_head]
        return out


def check_formula(backend: AttentionBackend, spec: PagedKV, device: torch.device) -> None:
    """Whole prompts, windows, sinks and an empty first index are what the formula says."""
    requests = Requests(spec, device)
    whole = [(request, 0, length) for request, length in enumerate(LENGTHS)]
    sinks = torch.linspace(-2, 3, NUM_HEADS, device=device)
    for options in ({}, {"window": 20}, {"kv_start": 1}, {"sinks": sinks}, {"window": 7, "kv_start": 1}):
        for (request, _, _), out in zip(whole, requests.attend(backend, whole, **options), strict=True):
            exact = requests.expected(request, **options)
            error = float((out.cpu().double() - exact).norm() / exact.norm().clamp(min=1e-9))
            assert error < LIMITS[spec.dtype], f"request {request} {options}: relative RMS error {error:.2e}"


def check_invariance(backend: AttentionBackend, spec: PagedKV, device: torch.device) -> None:
    """A token has the same bits in every batch and for every chunking."""
    requests = Requests(spec, device)
    whole = requests.attend(backend, [(request, 0, length) for request, length in enumerate(LENGTHS)])
    for rows in (
        [(3, 149, 150)],
        [(3, 146, 150), (0, 69, 70), (2, 32, 33)],
        [(2, 0, 17), (3, 60, 101), (1, 0, 1)],
        [(3, start, start + 1) for start in range(0, 150, 11)],
    ):
        for (request, start, stop), out in zip(rows, requests.attend(backend, rows), strict=True):
            assert torch.equal(out, whole[request][start:stop]), f"request {request}, tokens {start} to {stop} changed"


def check_latent(backend: AttentionBackend, spec: Latent, device: torch.device) -> None:
    """A chunk after a prompt over latent rows is what the formula says, from blocks in any order beside NaN."""
    generator = torch.Generator().manual_seed(3)
    length, first, start = 70, 60, 1
    rows = torch.randn(length, spec.rank + spec.rope_size, generator=generator).to(device, spec.dtype)
    q = torch.randn(length - first, NUM_HEADS, rows.shape[1], generator=generator).to(device, spec.dtype)
    cache = spec.allocate(8, block_size=BLOCK_SIZE, group=0, device=device)
    cache.rows.fill_(float("nan"))
    blocks = [5, 2, 7, 1, 4]
    for index in range(length):
        cache.rows[blocks[index // BLOCK_SIZE], index % BLOCK_SIZE] = rows[index]
    positions = torch.arange(first, length, device=device)
    batch = ForwardBatch(
        token_ids=torch.zeros_like(positions),
        positions=positions,
        kv_lengths=positions + 1,
        groups={0: GroupBatch(torch.tensor([blocks], dtype=torch.int32, device=device), torch.zeros_like(positions))},
        row_counts=(length - first,),
        kv_length_bound=length,
        kv_start=start,
    )
    out = backend.attend_latent(q, cache, batch, backend.begin(batch), rank=spec.rank, scale=0.3)
    for t, position in enumerate(range(first, length)):
        seen = rows[start : position + 1].double()
        exact = (0.3 * q[t].double() @ seen.T).softmax(dim=1) @ seen[:, : spec.rank]
        assert float((out[t].double() - exact).norm() / exact.norm()) < LIMITS[spec.dtype], f"token {position}"
