"""Conformance checks of latent attention's kernels and of the router in groups: each against its formula in double
precision, in memory that is NaN where nothing was written.
"""

import random

import torch
from torch import Tensor

from tests.kernels.subject import Subject

NAN = float("nan")
RANK, ROPE, BLOCK_SIZE = 48, 16, 16


def check_project_heads(at: Subject) -> None:
    for num_tokens, num_heads in ((0, 3), (1, 5), (21, 4)):
        x, weight = at.randn(num_tokens, num_heads, 24), at.randn(num_heads, 40, 32)
        keys = weight[:, :24].transpose(1, 2)  # rows of a larger matrix, from the other side
        exact = torch.einsum("mhk,hnk->mhn", x.double(), keys.double())
        at.close("project_heads, transposed", at.kernels.project_heads(x, keys), exact)
        x = at.randn(num_tokens, num_heads, 32)
        exact = torch.einsum("mhk,hnk->mhn", x.double(), weight[:, 24:].double())
        at.close("project_heads", at.kernels.project_heads(x, weight[:, 24:]), exact)


def check_rotary_and_write_latent(at: Subject) -> None:
    slots, positions = torch.tensor([63, 16, 33, 34, 48, 17], device=at.device), at.integers(6, high=30)
    angles = at.randn(30, ROPE // 2, dtype=torch.float32)
    cos_sin, norm = torch.cat([angles.cos(), angles.sin()], dim=1), at.randn(RANK)
    q, latent = at.randn(6, 5, 24 + ROPE)[:, :, 24:], at.randn(6, 7 + RANK + ROPE)[:, 7:] * 3
    cos, sin = cos_sin[positions].double()[:, None].chunk(2, dim=2)
    for is_interleaved in (True, False):

        def turned(x: Tensor, is_interleaved: bool = is_interleaved) -> Tensor:
            parts = (x[..., 0::2], x[..., 1::2]) if is_interleaved else x.chunk(2, dim=-1)
            first, second = (part.double() for part in parts)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

        cache = at.randn(4, BLOCK_SIZE, RANK + ROPE).fill_(NAN)
        ours = at.kernels.rotary_and_write_latent(
            q, latent, norm, positions, cos_sin, cache, slots, eps=1e-3, is_interleaved=is_interleaved
        )
        at.close("q", ours, turned(q))
        c = latent[:, :RANK].double()
        normed = c * torch.rsqrt(c.square().mean(dim=1, keepdim=True) + 1e-3) * norm.double()
        rows = torch.cat([normed, turned(latent[:, None, RANK:])[:, 0]], dim=1)
        flat = cache.view(-1, RANK + ROPE)
        at.close("the rows", flat[slots], rows)
        assert int(flat.isnan().all(dim=1).sum()) == len(flat) - len(slots), "another slot was written"


class LatentCase:
    """Requests whose queries and rows are known for every position; blocks in random order, the rest NaN."""

    def __init__(self, at: Subject, lengths: tuple[int, ...], *, num_heads: int) -> None:
        self.at, self.lengths = at, lengths
        self.q = [2 * at.randn(n, num_heads, RANK + ROPE) for n in lengths]
        self.rows = [at.randn(n, RANK + ROPE) for n in lengths]
        counts = [-(-n // BLOCK_SIZE) for n in lengths]
        free = list(range(1, sum(counts) + 4))
        random.Random(0).shuffle(free)
        self.blocks = [[free.pop() for _ in range(count)] for count in counts]
        self.num_blocks = sum(counts) + 4

    def attend(self, parts: list[tuple[int, int, int]], *, kv_start: int = 0, padding: int = 0) -> list[Tensor]:
        """One call; parts (request, start, stop) in positions. Only rows before a part's end are in the cache."""
        cache = self.rows[0].new_full((self.num_blocks, BLOCK_SIZE, RANK + ROPE), NAN)
        for request, _, stop in parts:
            for position in range(stop):
                block = self.blocks[request][position // BLOCK_SIZE]
                cache[block, position % BLOCK_SIZE] = self.rows[request][position]
        width = max(len(self.blocks[request]) for request, _, _ in parts)
        tables = [self.blocks[request] + [0] * (width - len(self.blocks[request])) for request, _, _ in parts]
        lengths = [position + 1 for _, start, stop in parts for position in range(start, stop)]
        counts = [stop - start for _, start, stop in parts]
        q = torch.cat([self.q[request][start:stop] for request, start, stop in parts])
        q = torch.cat([q, q.new_full((padding, *q.shape[1:]), NAN)])
        device = self.at.device
        plan = self.at.kernels.plan_attention(
            torch.tensor(tables, dtype=torch.int32, device=device),
            torch.tensor(lengths + [0] * padding, device=device),
            row_counts=(*counts[:-1], counts[-1] + padding),
            kv_length_bound=max(lengths) + padding,
        )
        out = self.at.kernels.latent_attention(q, cache, plan, rank=RANK, scale=0.2, kv_start=kv_start)
        return list(out[: len(lengths)].split(counts))

    def exact(self, request: int, *, kv_start: int = 0) -> Tensor:
        """[length, num_heads, RANK] in fp64, one token at a time."""
        q, rows = self.q[request].double(), self.rows[request].double()
        out = torch.zeros(q.shape[0], q.shape[1], RANK, dtype=torch.float64, device=q.device)
        for t in range(kv_start, len(q)):
            seen = rows[kv_start : t + 1]
            out[t] = (0.2 * q[t] @ seen.T).softmax(dim=1) @ seen[:, :RANK]
        return out


def check_latent_attention(at: Subject) -> None:
    for num_heads in (1, 5, 16, 20):
        case = LatentCase(at, (70, 1, 150, 33), num_heads=num_heads)
        whole = [(i, 0, n) for i, n in enumerate(case.lengths)]
        for kv_start in (0, 3):
            for (request, _, _), out in zip(whole, case.attend(whole, kv_start=kv_start), strict=True):
                exact = case.exact(request, kv_start=kv_start)
                at.close("latent_attention", out, exact)
                assert not bool(out[:kv_start].any()), "a token that sees nothing gives zeros"
        outs = case.attend(whole)
        for parts in (
            [(2, 149, 150)],
            [(2, 146, 150), (0, 69, 70), (3, 32, 33)],
            [(3, 0, 17), (2, 60, 101), (1, 0, 1)],
            *([(0, start, min(start + 13, 70))] for start in range(0, 70, 13)),
        ):
            for (request, start, stop), out in zip(parts, case.attend(parts, padding=start_of(parts)), strict=True):
                at.same(f"request {request}, {start} to {stop}", out, outs[request][start:stop])


def start_of(parts: list[tuple[int, int, int]]) -> int:
    """Some padding, of another length for each list of parts."""
    return parts[0][1] % 5


def check_route_grouped(at: Subject) -> None:
    num_experts = 12
    logits = at.randn(41, num_experts, dtype=torch.float32) * 2
    logits[3] = 0.0
    logits[4] = logits[4].round()
    biases = (None, at.randn(num_experts, dtype=torch.float32), torch.full((num_experts,), -5.0, device=at.device))
    for scoring in ("sigmoid", "softmax"):
        for num_groups, num_chosen, top_k in ((1, 1, 5), (4, 2, 4), (3, 2, 3), (2, 1, 6)):
            for bias in biases:
                routing = at.kernels.route_grouped(
                    logits, bias, top_k=top_k, scoring=scoring, num_groups=num_groups, num_chosen_groups=num_chosen,
                    is_normalized=bias is not None, scale=2.5,
                )  # fmt: skip
                scores = logits.double().sigmoid() if scoring == "sigmoid" else logits.double().softmax(dim=1)
                for token in range(len(logits)):
                    # near ties are decided by the scores as they are in fp32: the experts are taken as they came
                    chosen = [int(expert) for expert in routing.ids[token]]
                    assert len(set(chosen)) == top_k
                    _check_choice(scores[token], bias, chosen, scoring, num_groups, num_chosen)
                    exact = scores[token, chosen]
                    exact = exact / exact.sum() if bias is not None else exact
                    at.close("weights", routing.weights[token], exact * 2.5, dtype=torch.float32)


def _check_choice(
    scores: Tensor, bias: Tensor | None, chosen: list[int], scoring: str, num_groups: int, num_chosen: int
) -> None:
    """Experts of the best groups, the best of them first; equal ones in ascending order."""
    choice = [float(score) + (float(bias[i]) if bias is not None else 0.0) for i, score in enumerate(scores)]
    size, close = len(choice) // num_groups, 1e-6
    groups = [sorted(choice[g * size : (g + 1) * size], reverse=True) for g in range(num_groups)]
    worth = [sum(group[: 2 if scoring == "sigmoid" else 1]) for group in groups]
    best = sorted(range(num_groups), key=lambda g: (-round(worth[g], 6), g))[:num_chosen]
    allowed = [i for g in sorted(best) for i in range(g * size, (g + 1) * size)]
    expected = sorted(allowed, key=lambda i: (-round(choice[i], 6), i))[: len(chosen)]
    for ours, wanted in zip(chosen, expected, strict=True):
        assert ours in allowed, f"expert {ours} is of a group that was left out"
        assert abs(choice[ours] - choice[wanted]) < close, f"{chosen} is not {expected}"
    if len(set(choice)) == 1:
        assert chosen == expected, "equal experts are chosen in ascending order"
