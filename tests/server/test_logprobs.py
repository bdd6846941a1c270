"""Log-probabilities in answers: JSON has no minus infinity, so the lowest value is sent instead."""

import json
import math

from outrider.core.outputs import Logprob
from outrider.server.logprobs import LOWEST, chat_logprobs, completion_logprobs


def test_minus_infinity_is_sent_as_the_lowest_value() -> None:
    place = {
        5: Logprob(logprob=-math.inf, rank=2, decoded_token="a"),
        7: Logprob(logprob=-0.5, rank=1, decoded_token="b"),
    }
    answer, _ = completion_logprobs([5, 7], [place, place], offset=0, as_ids=False)
    assert answer["token_logprobs"] == [LOWEST, -0.5]
    assert answer["top_logprobs"] == [{"a": LOWEST, "b": -0.5}] * 2
    chat = chat_logprobs([5], [place], num_top=2, as_ids=False)
    assert chat["content"][0]["logprob"] == LOWEST
    for body in (answer, chat):
        json.dumps(body, allow_nan=False)


def test_a_chat_shows_the_most_likely_tokens_and_those_asked_for_by_id() -> None:
    """Token 9 has rank 4 and was asked for by id; the chosen token 5 has rank 3 and is not among the top two."""
    ranks = {7: 1, 8: 2, 5: 3, 9: 4}
    place = {key: Logprob(logprob=-float(rank), rank=rank, decoded_token=str(key)) for key, rank in ranks.items()}
    (entry,) = chat_logprobs([5], [place], num_top=2, as_ids=False)["content"]
    assert entry["token"] == "5" and [top["token"] for top in entry["top_logprobs"]] == ["7", "8", "9"]
    (entry,) = chat_logprobs([5], [place], num_top=3, as_ids=False)["content"]
    assert [top["token"] for top in entry["top_logprobs"]] == ["7", "8", "5", "9"]
