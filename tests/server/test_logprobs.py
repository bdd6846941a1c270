"""Log-probabilities in answers: JSON has no minus infinity, and tokens have bytes."""

import json
import math
import random

from outrider.core.outputs import Logprob
from outrider.engine.token_bytes import readable
from outrider.server.logprobs import LOWEST, TextOffsets, chat_logprobs, completion_logprobs, prompt_logprobs


def test_minus_infinity_is_sent_as_the_lowest_value() -> None:
    place = {
        5: Logprob(logprob=-math.inf, rank=2, decoded_token="a"),
        7: Logprob(logprob=-0.5, rank=1, decoded_token="b"),
    }
    answer = completion_logprobs([5, 7], [place, place], offsets=TextOffsets(), as_ids=False)
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


def entry_of(data: bytes, logprob: float = -1.0) -> Logprob:
    return Logprob(logprob=logprob, rank=1, decoded_token=readable(data), token_bytes=data)


def cut(data: bytes, dice: random.Random) -> list[bytes]:
    """Pieces of 1 to 3 bytes, some of them empty."""
    pieces = []
    while data:
        size = dice.randrange(4)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def test_offsets_are_the_characters_in_which_tokens_begin() -> None:
    """Against the text of everything: a piece begins in the character that has its first byte."""
    dice = random.Random(1)
    for _ in range(300):
        text = "".join(dice.choices("ab é日🎉\n", k=dice.randrange(1, 9)))
        owner = [index for index, character in enumerate(text) for _ in character.encode()] + [len(text)]
        offsets, num_bytes = TextOffsets(), 0
        for piece in cut(text.encode(), dice):
            assert offsets.place(piece) == owner[num_bytes], (text, piece)
            num_bytes += len(piece)
    broken = TextOffsets()  # "a", half a character that nothing ends, "b": the text is "a\ufffdb"
    assert [broken.place(piece) for piece in (b"a", b"\xf0\x9f", b"b", b"\xff", b"c")] == [0, 1, 2, 3, 4]


def test_parts_of_characters_have_their_bytes_and_names_of_their_own() -> None:
    pieces = ["x é".encode()[:-1], b"\xa9", "日".encode()]
    other = entry_of(b"\xc3", -2.0)
    places = [{1: entry_of(pieces[0]), 9: other}, {2: entry_of(pieces[1]), 9: other}, {3: entry_of(pieces[2])}]
    chat = chat_logprobs([1, 2, 3], places, num_top=1, as_ids=False)["content"]
    assert bytes(value for place in chat for value in place["bytes"]).decode() == "x é日"
    assert [place["token"] for place in chat] == [r"x \xc3", r"\xa9", "日"]
    assert [top["bytes"] for top in chat[0]["top_logprobs"]] == [list(pieces[0]), [0xC3]]
    offsets = TextOffsets()
    halves = [
        completion_logprobs(ids, part, offsets=offsets, as_ids=False)
        for ids, part in (([1], places[:1]), ([2, 3], places[1:]))
    ]
    assert [*halves[0]["tokens"], *halves[1]["tokens"]] == [r"bytes:x \xc3", r"bytes:\xa9", "日"]
    assert [*halves[0]["text_offset"], *halves[1]["text_offset"]] == [0, 2, 3]
    assert prompt_logprobs([None, places[1]])[1]["2"]["bytes"] == [0xA9]


def test_no_token_is_lost_where_two_have_the_same_text() -> None:
    place = {5: entry_of(b"a", -2.0), 7: entry_of(b"a", -0.5), 8: entry_of(b"b", -3.0)}
    answer = completion_logprobs([5], [place], offsets=TextOffsets(), as_ids=False)
    assert answer["tokens"] == ["a"] and answer["top_logprobs"] == [{"a": -2.0, "token_id:7": -0.5, "b": -3.0}]


def test_the_first_token_of_a_prompt_has_a_name_and_no_log_probability() -> None:
    answer = completion_logprobs(
        [1, 2], [None, {2: entry_of(b"b")}], offsets=TextOffsets(), as_ids=False, prompt_pieces=[b"\xc3", b"\xa9b"]
    )
    assert answer["tokens"] == [r"bytes:\xc3", "b"] and answer["text_offset"] == [0, 0]
    assert answer["token_logprobs"] == [None, -1.0]
