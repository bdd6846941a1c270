"""Continues prompts with a target, greedily or with Gumbel noise keyed by (seed, step). Batched, with a cache.

Made for training data and for measuring; it is not the engine and promises no exactness.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from outrider_recipe.network import Target

PAD_TO = 64


def gumbel(shape: tuple[int, ...], *, seed: int, device: torch.device) -> Tensor:
    random = torch.Generator(device=device).manual_seed(seed)
    uniform = torch.rand(shape, generator=random, device=device).clamp(1e-9, 1 - 1e-7)
    return -(-uniform.log()).log()


def step_noise(num_rows: int, vocab_size: int, *, seed: int, step: int, device: torch.device) -> Tensor:
    """[num_rows, vocab_size] noise of the token number `step` after the prompt, the same for target and drafter."""
    return gumbel((num_rows, vocab_size), seed=seed * 1_000_003 + step, device=device)


@torch.no_grad()
def continue_prompts(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    num_tokens: int,
    temperature: float,
    seed: int,
    stop_ids: Sequence[int] = (),
    precision: torch.dtype = torch.float32,
) -> list[list[int]]:
    """`num_tokens` more tokens for each prompt, or fewer if a stop id came first (it is kept)."""
    device = target.model.embed_tokens.weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    capacity = -(-(longest + num_tokens) // PAD_TO) * PAD_TO
    like = torch.zeros((), dtype=precision, device=device)
    stops = torch.tensor(list(stop_ids), device=device, dtype=torch.long)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        cache = target.empty_cache(len(prompts), capacity=capacity, like=like)
        hidden = target.prefill(ids.to(device), cache, lengths=lengths)
        hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
        chosen, is_done = [], torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(num_tokens):
            logits = target.logits(hidden).float()
            if temperature > 0:
                noise = step_noise(*logits.shape, seed=seed, step=step, device=device)
                logits = logits / temperature + noise
            token = logits.argmax(dim=-1)
            chosen.append(token)
            is_done |= torch.isin(token, stops)
            if step + 1 == num_tokens or (step % 16 == 15 and bool(is_done.all())):
                break
            hidden = target.step(token, cache, lengths=lengths + step)
    rows = torch.stack(chosen, dim=1).tolist()
    return [_cut(row, set(stop_ids)) for row in rows]


def _cut(row: list[int], stops: set[int]) -> list[int]:
    for index, token in enumerate(row):
        if token in stops:
            return row[: index + 1]
    return row
