"""Long JSON answers are the text that short ones have, made in parts."""

import json

import pytest
from starlette.responses import JSONResponse

from outrider.server import large_answer
from outrider.server.large_answer import LargeAnswer, encoded

PLACE = {
    "1": {"logprob": -1.25, "rank": 1, "decoded_token": "\u00e9\\n", "bytes": [195, 169]},
    "2": {"logprob": -9999.0},
}
ANSWER = {
    "id": "cmpl-1", "choices": [
        {"index": index, "text": "a\"b", "logprobs": None, "prompt_logprobs": [None] + [PLACE] * 50,
         "deep": {"a": [[[{"b": [1, 2.5, True, None, {}, [], ""]}]]]}} for index in range(3)
    ], "usage": {"prompt_tokens": 3, "kv": {}}, "empty": [], "token_ids": (1, 2, 3),
}  # fmt: skip


def test_the_text_is_that_of_a_short_answer() -> None:
    assert LargeAnswer(ANSWER).body == JSONResponse(ANSWER).body
    for value in (None, 1, "x", [], {}, [[]], {"a": []}, (), 0.1):
        assert encoded(value).encode() == JSONResponse(value).body
    with pytest.raises(ValueError, match="JSON"):
        encoded({"a": [float("nan")]})


def test_no_part_is_longer_than_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the encoder keeps Python's lock."""
    lengths, encode = [], large_answer._encode

    def count(value: object) -> str:
        text = encode(value)
        lengths.append(len(text))
        return text

    monkeypatch.setattr(large_answer, "_encode", count)
    assert json.loads(encoded(ANSWER)) == json.loads(json.dumps(ANSWER))
    assert max(lengths) <= len(encode(PLACE)) + 2
