"""Log-probabilities in answers: JSON has no minus infinity, so the lowest value stands for it."""

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
