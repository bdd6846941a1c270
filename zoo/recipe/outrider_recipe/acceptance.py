"""Counts the drafts of a drafter that a known continuation of the target accepts. Uses no engine.

Acceptance is by equality, so whatever drafts are made the target's output is the same. It can therefore be
sampled first; then all positions are drafted at once (`Head.unroll`), and the rounds walked through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from outrider_recipe.head import Head
from outrider_recipe.network import Target
from outrider_recipe.sampling import step_noise

ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Continuation:
    prompt: list[int]
    output: list[int]


@dataclass(slots=True)
class Acceptance:
    """Counts over rounds; a round verifies up to `num_drafts` drafts and yields one token more than it accepts."""

    num_drafts: int
    rounds: int = 0
    accepted_at: list[int] = field(default_factory=list)  # [num_drafts] rounds in which draft i was accepted

    def add(self, accepted: int) -> None:
        self.accepted_at = self.accepted_at or [0] * self.num_drafts
        self.rounds += 1
        for index in range(accepted):
            self.accepted_at[index] += 1

    def figures(self) -> dict[str, object]:
        rounds = max(self.rounds, 1)
        rates = [round(count / rounds, 4) for count in self.accepted_at]
        return {
            "mean_acceptance_length": round(1 + sum(self.accepted_at) / rounds, 4),
            "rate_per_position": rates,
            "rounds": self.rounds,
        }


def walk(matches: Sequence[int], output_length: int, *, num_drafts: int, into: Acceptance) -> None:
    """matches[i]: leading drafts that are right when output token i is the newest. Token 0 comes from the prompt."""
    newest = 0
    while newest < output_length - 1:
        accepted = min(matches[newest], num_drafts, output_length - 1 - newest)
        into.add(accepted)
        newest += accepted + 1


@torch.no_grad()
def measure_head(
    head: Head,
    target: Target,
    continuations: Sequence[Continuation],
    *,
    num_drafts: int,
    temperature: float,
    seed: int,
) -> Acceptance:
    """Chain drafting; at a temperature the drafter uses the noise with which the target sampled."""
    result = Acceptance(num_drafts)
    for first in range(0, len(continuations), ROWS_AT_ONCE):
        part = continuations[first : first + ROWS_AT_ONCE]
        counts = _matches(
            head,
            target,
            part,
            num_drafts=num_drafts,
            temperature=temperature,
            seed=seed,
            first=first,
            total=len(continuations),
        )
        for continuation, row in zip(part, counts, strict=True):
            walk(row, len(continuation.output), num_drafts=num_drafts, into=result)
    return result


def _matches(
    head: Head,
    target: Target,
    part: Sequence[Continuation],
    *,
    num_drafts: int,
    temperature: float,
    seed: int,
    first: int,
    total: int,
) -> list[list[int]]:
    device = target.model.embed_tokens.weight.device
    longest = max(len(item.prompt) + len(item.output) for item in part)
    ids = torch.zeros(len(part), longest, dtype=torch.long)
    for row, item in enumerate(part):
        ids[row, : len(item.prompt) + len(item.output)] = torch.tensor(item.prompt + item.output)
    ids = ids.to(device)
    _, features = target(ids)
    steps = head.unroll(features, ids, target.model.embed_tokens.weight, num_steps=num_drafts)
    prompts = torch.tensor([len(item.prompt) for item in part], device=device)
    num_outputs = max(len(item.output) for item in part)
    noise: list[Tensor] = []
    if temperature > 0:
        noise = [
            step_noise(total, target.shape.vocab_size, seed=seed, step=step, device=device)[
                first : first + len(part), head.draft_ids
            ]
            for step in range(num_outputs)
        ]
    rows = torch.arange(len(part), device=device)
    right = torch.zeros(len(part), num_outputs, num_drafts, dtype=torch.bool, device=device)
    for newest in range(num_outputs - 1):
        for step, logits in enumerate(steps):
            drafted = newest + 1 + step  # the output token that this draft stands for
            if drafted >= num_outputs:
                break
            anchor = (prompts + newest - 1).clamp(max=longest - 1)
            row_logits = logits[rows, anchor].float()
            if temperature > 0:
                row_logits = row_logits / temperature + noise[drafted]
            draft = head.draft_ids[row_logits.argmax(dim=-1)]
            truth = ids[rows, (prompts + drafted).clamp(max=longest - 1)]
            right[:, newest, step] = draft == truth
    return right.int().cumprod(dim=2).sum(dim=2).tolist()


def lookup_draft(tokens: Sequence[int], *, longest: int, shortest: int, num_drafts: int) -> list[int]:
    """Prompt lookup: what followed the most recent earlier occurrence of the longest matching suffix."""
    text = "".join(map(chr, tokens))  # one character a token, so that the search is str.rfind
    for size in range(longest, shortest - 1, -1):
        begin = text.rfind(text[-size:], 0, len(text) - 1) if len(text) > size else -1
        if begin >= 0:
            return list(tokens[begin + size : begin + size + num_drafts])
    return []


def measure_lookup(
    continuations: Sequence[Continuation], *, num_drafts: int, longest: int = 4, shortest: int = 2
) -> Acceptance:
    """Every round counts, also one in which nothing was found to draft."""
    result = Acceptance(num_drafts)
    for item in continuations:
        matches = []
        for newest in range(len(item.output)):
            known = item.prompt + item.output[: newest + 1]
            drafts = lookup_draft(known, longest=longest, shortest=shortest, num_drafts=num_drafts)
            truth = item.output[newest + 1 : newest + 1 + len(drafts)]
            pairs = zip(drafts, truth, strict=False)
            count = 0
            for draft, token in pairs:
                if draft != token:
                    break
                count += 1
            matches.append(count)
        walk(matches, len(item.output), num_drafts=num_drafts, into=result)
    return result


def distinct_four_grams(outputs: Sequence[Sequence[int]]) -> float:
    """Mean over outputs of the share of 4-grams that are the first of their kind in that output."""
    shares = []
    for output in outputs:
        grams = [tuple(output[i : i + 4]) for i in range(len(output) - 3)]
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return round(sum(shares) / max(len(shares), 1), 4)
