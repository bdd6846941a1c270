"""Counting accepted drafts on a known continuation equals drafting round by round."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from outrider_recipe import acceptance, checkpoints, sampling, vocabulary
from outrider_recipe.acceptance import Acceptance, Continuation

from .stepwise import Drafter

ZOO = Path(__file__).parents[2]
NUM_DRAFTS = 3
NUM_TOKENS = 20


def test_rounds_are_walked_and_clipped_at_the_end() -> None:
    counted = Acceptance(NUM_DRAFTS)
    acceptance.walk([2, 0, 0, 3, 0, 0, 0, 1], 8, num_drafts=NUM_DRAFTS, into=counted)
    assert (counted.rounds, counted.accepted_at) == (2, [2, 2, 1])  # 0 -> 3 with two accepted, 3 -> 7 with three
    assert counted.figures()["mean_acceptance_length"] == pytest.approx(1 + 5 / 2)


def test_lookup_takes_the_longest_then_the_latest_match() -> None:
    tokens = [1, 2, 3, 9, 2, 3, 8, 1, 2, 3]
    assert acceptance.lookup_draft(tokens, longest=4, shortest=2, num_drafts=3) == [9, 2, 3]
    assert acceptance.lookup_draft([*tokens[4:], 5], longest=4, shortest=2, num_drafts=3) == []
    assert acceptance.lookup_draft([7, 7, 7], longest=4, shortest=2, num_drafts=3) == [7]


def test_distinct_four_grams_fall_with_repetition() -> None:
    assert acceptance.distinct_four_grams([list(range(20))]) == 1.0
    assert acceptance.distinct_four_grams([[1, 2] * 10]) == pytest.approx(2 / 17, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_counting_equals_drafting_round_by_round(temperature: float) -> None:
    device = torch.device("cpu")
    target = checkpoints.load_target(ZOO / "tiny", device)
    head = checkpoints.load_head(ZOO / "tiny-eagle3", device)
    tokenizer = vocabulary.load(ZOO / "tiny")
    prompt = tokenizer.encode("def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n").ids
    (output,) = sampling.continue_prompts(target, [prompt], num_tokens=NUM_TOKENS, temperature=temperature, seed=5)
    counted = acceptance.measure_head(
        head, target, [Continuation(prompt, output)], num_drafts=NUM_DRAFTS, temperature=temperature, seed=5
    )

    noise = [
        sampling.step_noise(1, target.shape.vocab_size, seed=5, step=step, device=device)[0]
        for step in range(NUM_TOKENS + NUM_DRAFTS)
    ]
    tokens, accepted_per_round, newest = prompt + output, [], 0
    _, features = target(torch.tensor([tokens]))
    drafter = Drafter(head, target.model.embed_tokens.weight)
    while newest < NUM_TOKENS - 1:
        known = tokens[: len(prompt) + newest + 1]
        drafts: list[int] = []

        def choose(step: int, logits: Tensor, newest: int = newest, drafts: list[int] = drafts) -> int:
            if temperature > 0:
                logits = logits / temperature + noise[newest + 1 + step][head.draft_ids]
            drafts.append(int(head.draft_ids[logits.argmax()]))
            return drafts[-1]

        drafter.chain(features[0], known, num_steps=min(NUM_DRAFTS, NUM_TOKENS - 1 - newest), choose=choose)
        accepted = 0
        while accepted < len(drafts) and drafts[accepted] == tokens[len(known) + accepted]:
            accepted += 1
        accepted_per_round.append(accepted)
        newest += accepted + 1
    assert counted.rounds == len(accepted_per_round)
    assert sum(counted.accepted_at) == sum(accepted_per_round)
