"""Texts of single tokens join to the whole text, however it is cut; usage grows in a stream."""

import random
from pathlib import Path
from typing import Any

import pytest

from outrider.core.outputs import OutputDelta, RequestOutput, SpeculationStats
from outrider.engine.tokenizer import Tokenizer
from outrider.server.completions import CompletionRequest
from outrider.server.token_details import TokenDetails
from outrider.server.usage import Usage

TOKENIZER = Tokenizer(Path(__file__).parents[2] / "zoo" / "tiny")


def details(**fields: Any) -> TokenDetails:
    return TokenDetails(CompletionRequest(prompt="x", **fields), TOKENIZER, skip_special_tokens=True)


@pytest.mark.parametrize("text", ["def f(x):\n    return x", "Grüße, 世界 🚀!", "\u0000\u007f"])
def test_own_texts_make_the_text_however_tokens_are_delivered(text: str) -> None:
    ids = TOKENIZER.encode(text)
    dice = random.Random(3)
    for _ in range(20):
        told = details(return_token_origins=True)
        found: list[str] = []
        place = 0
        while place < len(ids):
            end = min(len(ids), place + dice.randint(1, 4))
            choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if end == len(ids) else None}
            told.add(choice, ids[place:end], [True] * (end - place))
            assert len(choice["token_texts"]) == len(choice["origins"]) == end - place
            found += choice["token_texts"]
            place = end
        assert "".join(found) == text


def test_bytes_of_a_character_that_never_ended_are_not_lost() -> None:
    ids = TOKENIZER.encode("🚀")
    assert len(ids) > 1
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    details(return_token_origins=True).add(choice, ids[:-1], [False] * (len(ids) - 1))
    assert "".join(choice["token_texts"]) == TOKENIZER.decode(ids[:-1])


def test_special_tokens_are_shown_where_the_text_keeps_them() -> None:
    ids = TOKENIZER.encode("a<|im_end|>")
    for skips, text in ((True, "a"), (False, "a<|im_end|>")):
        told = TokenDetails(
            CompletionRequest(prompt="x", return_token_origins=True), TOKENIZER, skip_special_tokens=skips
        )
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        told.add(choice, ids, [False] * len(ids))
        assert "".join(choice["token_texts"]) == text


def test_choices_do_not_mix_their_characters() -> None:
    ids = TOKENIZER.encode("🚀")
    told = details(return_token_origins=True)
    texts = {0: "", 1: ""}
    for place, token_id in enumerate(ids):
        for index in texts:
            choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if place == len(ids) - 1 else None}
            told.add(choice, [token_id], [False])
            texts[index] += choice["token_texts"][0]
    assert texts == {0: "🚀", 1: "🚀"}


def test_nothing_is_told_that_was_not_asked_for() -> None:
    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
    details().add(choice, [5], [True])
    assert choice.keys() == {"index", "finish_reason"}
    details(return_token_ids=True).add(choice, [5], [True])
    assert choice["token_ids"] == [5] and "origins" not in choice


def test_usage_of_a_stream_grows_to_that_of_the_whole() -> None:
    counts = [(1, 0, 0, 0, 0, 0), (2, 1, 3, 1, 1, 0), (3, 2, 5, 2, 1, 0)]
    stats = SpeculationStats(
        max_drafts=3,
        num_steps=3,
        num_drafts=2,
        num_draft_tokens=5,
        num_accepted_tokens=3,
        num_accepted_tokens_per_pos=[2, 1, 0],
    )
    assert stats.counts == counts[-1] and SpeculationStats.of_counts(stats.counts) == stats
    output = RequestOutput(
        request_id="a",
        prompt=None,
        prompt_token_ids=[1],
        outputs=[],
        seed=0,
        num_cached_tokens=4,
        num_preemptions=0,
        speculation=stats,
    )
    usage = Usage(num_prompt_tokens=9, num_drafts=3)
    bodies = []
    for step, so_far in enumerate(counts):
        is_last = step == len(counts) - 1
        usage.add_delta(
            OutputDelta(
                request_id="a",
                index=0,
                text="",
                token_ids=[1, 2],
                draft_counts=so_far,
                output=output if is_last else None,
            )
        )
        bodies.append(usage.body())
    assert [body["speculation"]["num_draft_tokens"] for body in bodies] == [0, 3, 5]
    assert [body["speculation"]["num_accepted_tokens_per_pos"] for body in bodies] == [[0, 0, 0], [1, 1, 0], [2, 1, 0]]
    assert bodies[-1]["speculation"]["mean_acceptance_length"] == stats.mean_acceptance_length == 2.5
    assert bodies[-1]["completion_tokens"] == 6
    assert bodies[-1]["completion_tokens_details"] == {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 2}
    assert bodies[-1]["prompt_tokens_details"] == {"cached_tokens": 4}
