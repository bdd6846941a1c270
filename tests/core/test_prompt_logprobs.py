"""Log-probabilities of a prompt as columns: the same as objects, made when they are read."""

import pickle

import pytest

from outrider.core import prompt_logprobs
from outrider.core.outputs import Logprob
from outrider.core.plan import TokenLogprobs
from outrider.core.prompt_logprobs import PromptLogprobs

IDS = (9, 1, 2, 3)
SCORES = [
    TokenLogprobs(logprob=-3.0, rank=7, top_ids=(5, 6), top_logprobs=(-0.5, -1.0)),
    TokenLogprobs(logprob=-0.1, rank=1, top_ids=(2, 5), top_logprobs=(-0.1, -4.0)),
    TokenLogprobs(logprob=-9.0, rank=40, top_ids=(), top_logprobs=()),
]


def test_columns_are_the_objects_in_the_order_of_their_ranks() -> None:
    named: list[tuple[int, bool]] = []

    def name(token_id: int, is_first: bool) -> tuple[str, bytes]:
        named.append((token_id, is_first))
        return f"{token_id}{is_first}", b"%d" % token_id

    places = PromptLogprobs(IDS, SCORES, name=name, num_first=1)
    assert sorted(named) == [(1, True), (2, False), (3, False), (5, False), (5, True), (6, True)], "each once"

    def entry(token_id: int, logprob: float, rank: int, is_first: bool) -> Logprob:
        return Logprob(logprob=logprob, rank=rank, decoded_token=f"{token_id}{is_first}", token_bytes=b"%d" % token_id)

    expected = [
        None,
        {5: entry(5, -0.5, 1, True), 6: entry(6, -1.0, 2, True), 1: entry(1, -3.0, 7, True)},
        {2: entry(2, -0.1, 1, False), 5: entry(5, -4.0, 2, False)},
        {3: entry(3, -9.0, 40, False)},
    ]
    assert places == expected and list(places) == expected and places[1:3] == expected[1:3] and len(places) == 4
    assert [list(place) for place in places if place] == [[5, 6, 1], [2, 5], [3]]
    assert repr(places) == repr(expected)
    assert pickle.loads(pickle.dumps(places)) == places
    assert places != expected[:3]


def test_no_object_is_made_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(**fields: object) -> object:
        made.append(fields)
        return fields

    monkeypatch.setattr(prompt_logprobs, "Logprob", count)
    places = pickle.loads(pickle.dumps(PromptLogprobs(IDS, SCORES, name=None)))
    assert not made and len(places) == 4 and not made
    assert places[3] is places[3] and len(made) == 5 + 2, "one for each of the tops, and one for each token"
