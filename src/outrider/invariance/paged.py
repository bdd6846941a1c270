"""Attention over a paged cache: a token's result is the same in a prompt, in a chunk of one, and as a draft."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from outrider.invariance.calls import Call
from outrider.invariance.comparison import difference
from outrider.invariance.form import Form, Limits, generator
from outrider.kernels.interface.cache import DeviceCounts

Part = tuple[int, int, int]
"""(request, first position, end) of the tokens of one row."""

_LENGTHS = (33, 300, 1, 64, 257, 150, 700, 1500)
_NUM_QUICK_LENGTHS = 4
_NAN = float("nan")


def paged_forms(call: Call, limits: Limits) -> list[Form]:
    """Forms of `paged_attention` or `latent_attention`."""
    case = _PagedCase(call, limits)
    last, longest = case.longest, case.lengths[case.longest]
    whole = [(request, 0, length) for request, length in enumerate(case.lengths)]
    ends = [(request, length - 1, length) for request, length in enumerate(case.lengths)]
    draft_rows = [(request, max(0, length - 4), length) for request, length in enumerate(case.lengths)]
    half = longest // 2

    def same(parts: Sequence[Part], padding: int = 0) -> Callable[[], str | None]:
        return lambda: case.compare(parts, padding=padding)

    mixed = [*draft_rows[:last], (last, half, half + min(13, longest - half))]
    found = [
        Form("a token alone", same([ends[last]])),
        Form("tokens of all requests", same(ends)),
        Form("drafts of all requests", same(draft_rows, padding=3)),
        Form("requests in another order", same(whole[::-1])),
        Form("a chunk of a prompt", same([(last, half, longest)])),
        Form("a chunk beside drafts", same(mixed)),
        Form("counts on the device", lambda: case.compare(mixed, padding=5, on_device=True)),
    ]
    for size in (1, 2, 5, 8, 16, 31, 64, 128):
        if size >= longest:
            continue
        starts = range(0, longest, size) if size >= 16 else (0, half, longest - size)
        chunks = [(last, start, min(start + size, longest)) for start in starts]
        found.append(Form(f"chunks of {size}", lambda chunks=chunks: case.compare_one_by_one(chunks), is_quick=False))  # type: ignore[misc]
    found += [Form(f"request of {part[2]} alone", same([part]), is_quick=False) for part in whole]
    return found


class _PagedCase:
    """Requests of several lengths; every slot of the cache that no token sees holds NaN."""

    def __init__(self, call: Call, limits: Limits) -> None:
        self._call, self._random = call, generator(call)
        self._q_like = call.arguments["q"]
        self._cache_names = [name for name in ("k_cache", "v_cache", "cache") if name in call.arguments]
        width = self._q_like[:1].numel()
        most = max(2, min(limits.max_length, limits.num_elements // (4 * width)))
        self.lengths = [min(length, most) for length in _LENGTHS[: _NUM_QUICK_LENGTHS if most <= 300 else None]]
        self.longest = max(range(len(self.lengths)), key=self.lengths.__getitem__)
        self._q = [self._normal(length, self._q_like.shape[1:]) * 2 for length in self.lengths]
        caches = [call.arguments[name] for name in self._cache_names]
        self._block_size = caches[0].shape[1]
        self._stored = [[self._normal(n, cache.shape[2:]) for n in self.lengths] for cache in caches]
        counts = [-(-length // self._block_size) for length in self.lengths]
        self._num_blocks = sum(counts) + 4
        free = (torch.randperm(self._num_blocks - 1, generator=self._random) + 1).tolist()
        self._blocks = [[free.pop() for _ in range(count)] for count in counts]

    def _normal(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.randn((count, *shape), generator=self._random).to(self._q_like)

    def _caches(self, known: dict[int, int]) -> dict[str, Tensor]:
        """The first known[i] positions of each request i."""
        caches = {}
        for name, stored in zip(self._cache_names, self._stored, strict=True):
            shape = (self._num_blocks, *self._call.arguments[name].shape[1:])
            cache = torch.full(shape, _NAN, dtype=self._q_like.dtype, device=self._q_like.device)
            for request, count in known.items():
                positions = torch.arange(count)
                blocks = torch.tensor(self._blocks[request])[positions // self._block_size]
                slots = blocks * self._block_size + positions % self._block_size
                cache.flatten(0, 1)[slots.to(cache.device)] = stored[request][:count]
            caches[name] = cache
        return caches

    def _attend(self, parts: Sequence[Part], *, padding: int = 0, on_device: bool = False) -> list[Tensor]:
        """One call: the result of each part. Padding is at the end."""
        device = self._q_like.device
        known: dict[int, int] = {}
        for request, _, end in parts:
            known[request] = max(known.get(request, 0), end)
        width = max(len(self._blocks[request]) for request, _, _ in parts)
        tables = [self._blocks[request] + [0] * (width - len(self._blocks[request])) for request, _, _ in parts]
        lengths = [position + 1 for _, start, end in parts for position in range(start, end)]
        counts = [end - start for _, start, end in parts]
        q = torch.cat([self._q[request][start:end] for request, start, end in parts])
        q = torch.cat([q, q.new_full((padding, *q.shape[1:]), _NAN)])
        if padding:
            tables.append([0] * width)
        rows = [*counts, padding] if padding else counts
        row_counts: tuple[int, ...] | DeviceCounts = tuple(rows)
        if on_device:
            on = torch.tensor(rows, device=device)
            row_counts = DeviceCounts(on, on.cumsum(0) - on, decode_width=4)
        plan = self._call.kernels.plan_attention(
            torch.tensor(tables, dtype=torch.int32, device=device),
            torch.tensor(lengths + [0] * padding, device=device),
            row_counts=row_counts,
            kv_length_bound=max(lengths) + padding,
        )
        out = self._call.run(q=q, plan=plan, **self._caches(known))
        return list(out[: len(lengths)].split(counts))

    @cached_property
    def _whole(self) -> list[Tensor]:
        """Each request alone, in one piece."""
        return [self._attend([(request, 0, length)])[0] for request, length in enumerate(self.lengths)]

    def compare(self, parts: Sequence[Part], *, padding: int = 0, on_device: bool = False) -> str | None:
        found = self._attend(parts, padding=padding, on_device=on_device)
        for (request, start, end), ours in zip(parts, found, strict=True):
            if said := difference([ours], [self._whole[request][start:end]]):
                return f"request of {self.lengths[request]} tokens, from {start} to {end}: {said}"
        return None

    def compare_one_by_one(self, parts: Sequence[Part]) -> str | None:
        return next(filter(None, (self.compare([part], padding=part[1] % 3) for part in parts)), None)
