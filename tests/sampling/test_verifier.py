"""Accept while equal: against a loop over requests, with gaps in the layout, no drafts and little num_tokens_left."""

import random

import pytest
import torch

from outrider.kernels.interface.sampling import Verified
from outrider.kernels.reference.sampling.verify import verify


def slow_verify(
    sampled: list[int], starts: list[int], counts: list[int], drafts: list[list[int]], num_tokens_left: list[int]
) -> list[tuple[list[int], int]]:
    """Per request: emitted tokens, and the accepted drafts among them."""
    results = []
    for start, count, row, space in zip(starts, counts, drafts, num_tokens_left, strict=True):
        emitted: list[int] = []
        num_accepted = 0
        for index in range(count):
            if len(emitted) == space:
                break
            token_id = sampled[start + index]
            emitted.append(token_id)
            if index == count - 1 or row[index] != token_id:
                break
            num_accepted += 1
        results.append((emitted, num_accepted))
    return results


def rows_of(verified: Verified) -> list[tuple[list[int], int]]:
    counts = verified.num_tokens.tolist()
    for row, count in zip(verified.token_ids.tolist(), counts, strict=True):
        assert not any(row[count:]), "places that were not emitted hold 0"
    rows = zip(verified.token_ids.tolist(), counts, verified.num_accepted.tolist(), strict=True)
    return [(row[:count], accepted) for row, count, accepted in rows]


@pytest.mark.parametrize("num_drafts", [0, 1, 3, 8])
def test_verify_equals_a_loop_over_requests(num_drafts: int) -> None:
    rng = random.Random(num_drafts)
    seen: set[int] = set()
    for _ in range(200):
        sampled: list[int] = []
        starts, counts, drafts, num_tokens_left = [], [], [], []
        for _ in range(rng.randrange(1, 9)):
            laid_out = rng.choice((0, 1, num_drafts + 1, rng.randrange(num_drafts + 2)))
            starts.append(len(sampled))
            counts.append(rng.randrange(laid_out + 1) if rng.random() < 0.3 else laid_out)
            tokens = [rng.randrange(5) for _ in range(laid_out)]
            sampled += tokens
            row = [*tokens, *[rng.randrange(5) for _ in range(num_drafts)]][:num_drafts]
            drafts.append([token if rng.random() < 0.8 else rng.randrange(5) for token in row])
            num_tokens_left.append(rng.choice((0, 1, 2, rng.randrange(num_drafts + 2), 1000)))
        verified = verify(
            torch.tensor(sampled, dtype=torch.int64),
            sample_starts=torch.tensor(starts),
            num_samples=torch.tensor(counts),
            drafts=torch.tensor(drafts, dtype=torch.int64).view(len(drafts), num_drafts),
            num_tokens_left=torch.tensor(num_tokens_left),
        )
        assert verified.token_ids.shape == (len(starts), num_drafts + 1)
        assert rows_of(verified) == slow_verify(sampled, starts, counts, drafts, num_tokens_left)
        seen.update(verified.num_accepted.tolist())
    assert seen == set(range(num_drafts + 1)), "every accepted count occurred"


def verify_one(
    sampled: list[int], drafts: list[int], *, num_samples: int, num_tokens_left: int
) -> tuple[list[int], int]:
    verified = verify(
        torch.tensor(sampled),
        sample_starts=torch.tensor([0]),
        num_samples=torch.tensor([num_samples]),
        drafts=torch.tensor([drafts]),
        num_tokens_left=torch.tensor([num_tokens_left]),
    )
    return rows_of(verified)[0]


def test_a_stale_draft_beyond_the_real_ones_is_not_accepted() -> None:
    assert verify_one([4, 5, 6], [4, 5], num_samples=2, num_tokens_left=9) == ([4, 5], 1)


def test_an_equal_draft_after_a_miss_is_not_accepted() -> None:
    assert verify_one([4, 5, 6, 7], [4, 0, 6], num_samples=4, num_tokens_left=9) == ([4, 5], 1)


def test_only_emitted_drafts_count_where_few_tokens_are_left() -> None:
    assert verify_one([4, 5, 6, 7], [4, 5, 6], num_samples=4, num_tokens_left=2) == ([4, 5], 2)
    assert verify_one([4, 5, 6, 7], [4, 5, 6], num_samples=4, num_tokens_left=0) == ([], 0)
    assert verify_one([4, 5, 6, 7], [4, 5, 6], num_samples=4, num_tokens_left=-3) == ([], 0)


def test_a_step_of_prompt_chunks_emits_nothing() -> None:
    verified = verify(
        torch.zeros(0, dtype=torch.int64),
        sample_starts=torch.zeros(3, dtype=torch.int64),
        num_samples=torch.zeros(3, dtype=torch.int64),
        drafts=torch.zeros(3, 2, dtype=torch.int64),
        num_tokens_left=torch.full((3,), 10),
    )
    assert rows_of(verified) == [([], 0)] * 3
