"""Usage counts of an answer with several completions and several prompts."""

import pytest

from outrider.core.outputs import OutputDelta
from outrider.server.usage import Usage


def delta(request_id: str, index: int, num_tokens: int, draft_counts: tuple[int, ...]) -> OutputDelta:
    return OutputDelta(
        request_id=request_id, index=index, text="", token_ids=[1] * num_tokens, draft_counts=draft_counts
    )


@pytest.mark.parametrize(("first", "second"), [(("a", 0), ("a", 1)), (("a", 0), ("b", 0))])
def test_the_counts_of_all_completions_are_added(first: tuple[str, int], second: tuple[str, int]) -> None:
    """Draft counts of a delta are those of its completion so far: the newest of each completion counts, once."""
    usage = Usage(num_prompt_tokens=12, num_drafts=2)
    # steps, steps with drafts, drafts verified, accepted at position 1 and 2
    usage.add_delta(delta(*first, 1, (1, 0, 0, 0, 0)))
    usage.add_delta(delta(*second, 3, (2, 1, 2, 1, 0)))
    usage.add_delta(delta(*first, 4, (3, 2, 4, 2, 1)))
    body = usage.body()
    assert (body["prompt_tokens"], body["completion_tokens"], body["total_tokens"]) == (12, 8, 20)
    assert body["completion_tokens_details"] == {"accepted_prediction_tokens": 4, "rejected_prediction_tokens": 2}
    speculation = body["speculation"]
    assert (speculation["num_steps"], speculation["num_drafts"], speculation["num_draft_tokens"]) == (5, 3, 6)
    assert speculation["num_accepted_tokens_per_pos"] == [3, 1]
