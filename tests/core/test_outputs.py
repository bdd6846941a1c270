"""Counts of speculation, and the digest of logits."""

import random

from outrider.core.digest import fold
from outrider.core.outputs import CompletionOutput, Logprob, RequestOutput, SpeculationStats


def stats(num_drafts: int, steps: list[tuple[int, int]]) -> SpeculationStats:
    made = SpeculationStats(max_drafts=num_drafts, num_accepted_tokens_per_pos=[0] * num_drafts)
    for drafts, accepted in steps:
        made.record(num_drafts=drafts, num_accepted=accepted)
    return made


def test_mean_acceptance_length_is_one_plus_accepted_over_drafts() -> None:
    made = stats(3, [(0, 0), (3, 3), (3, 0), (3, 1), (2, 2)])
    assert (made.num_steps, made.num_drafts, made.num_draft_tokens, made.num_accepted_tokens) == (5, 4, 11, 6)
    assert made.mean_acceptance_length == 1 + 6 / 4
    assert made.num_accepted_tokens_per_pos == [3, 2, 1]
    assert made.acceptance_rate_per_pos == [3 / 4, 2 / 4, 1 / 4], "unconditional: over all steps with drafts"


def test_without_drafts_a_step_gives_one_token() -> None:
    made = stats(3, [(0, 0), (0, 0)])
    assert (made.mean_acceptance_length, made.acceptance_rate_per_pos) == (1.0, [0.0, 0.0, 0.0])
    assert stats(0, []).mean_acceptance_length == 1.0


def test_sum_of_statistics_is_that_of_all_their_steps() -> None:
    rng = random.Random(0)
    steps = [(drafts := rng.randrange(6), rng.randrange(drafts + 1)) for _ in range(60)]
    total = SpeculationStats()
    for start in range(0, 60, 20):
        total.add(stats(5, steps[start : start + 20]))
    assert total == stats(5, steps)


def test_statistics_of_other_k_can_be_added() -> None:
    total = stats(2, [(2, 2)])
    total.add(stats(4, [(4, 4)]))
    assert (total.max_drafts, total.num_accepted_tokens_per_pos) == (4, [2, 2, 1, 1])
    total.add(stats(1, [(1, 1)]))
    assert (total.max_drafts, total.num_accepted_tokens_per_pos) == (4, [3, 2, 1, 1])


def digest(hashes: list[int]) -> int:
    value = 0
    for row_hash in hashes:
        value = fold(value, row_hash)
    return value


def test_digest_depends_on_every_row_and_on_their_order() -> None:
    rng = random.Random(1)
    rows = [rng.getrandbits(64) for _ in range(8)]
    seen = {digest(rows), digest(rows[:-1]), digest([*rows, 0]), digest(rows[::-1])}
    for index in range(8):
        for bit in (0, 31, 63):
            changed = list(rows)
            changed[index] ^= 1 << bit
            seen.add(digest(changed))
    assert len(seen) == 4 + 24
    assert all(0 <= value < 2**64 for value in seen)


def test_negative_row_hash_is_its_64_bits() -> None:
    assert fold(5, -1) == fold(5, 2**64 - 1)


def test_digest_stays_what_it_is() -> None:
    """Recorded values: digests are compared across runs and versions."""
    assert [f"{digest(rows):016x}" for rows in ([], [0], [1, 2, 3])] == [
        "0000000000000000",
        "6db6ca64564daeaa",
        "45393f499232a6b7",
    ]


def test_an_output_shows_its_text_in_a_notebook_and_not_what_is_there_for_every_token() -> None:
    many = list(range(100_000, 101_000))
    logprobs = [{token_id: Logprob(logprob=-1.0, rank=1)} for token_id in many]
    completion = CompletionOutput(
        index=0, text="Hello.", token_ids=many, finish_reason="stop", is_draft=[True] * 1000, logprobs=logprobs
    )
    shown = repr(
        RequestOutput(
            request_id="7", prompt="Hi", prompt_token_ids=many, outputs=[completion], seed=0, num_cached_tokens=16,
            num_preemptions=0, speculation=stats(3, [(3, 2)]), prompt_logprobs=[None, *logprobs],
        )
    )  # fmt: skip
    assert "text='Hello.', finish_reason='stop'" in shown and "prompt='Hi'" in shown and "num_cached_tokens=16" in shown
    assert "1000" not in shown and len(shown) < 600
