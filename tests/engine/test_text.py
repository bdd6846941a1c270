"""The end of an output and its text: random outputs and stop strings against a search over all prefixes."""

import random
from collections.abc import Sequence

import pytest

from outrider.core.outputs import FinishReason
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.text import OutputTexts
from outrider.engine.tokenizer import Tokenizer
from outrider.scheduler.request_state import RequestState

from .tokenizers_made_here import SENTENCES

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
END = 0
"""Id of <|end|>."""


def new_request(*, max_tokens: int = 1000, eos: tuple[int, ...] = (END,), **params: object) -> Request:
    return Request(
        request_id="r",
        prompt_token_ids=(1, 2, 3),
        params=SamplingParams(max_tokens=max_tokens, **params),  # type: ignore[arg-type]
        seed=0,
        eos_token_ids=eos,
        max_total_tokens=3 + max_tokens,
    )


class Output:
    """A request whose steps emit runs of tokens; stands for the scheduler."""

    def __init__(self, tokenizer: Tokenizer | None, request: Request) -> None:
        self.texts = OutputTexts(tokenizer)
        self.state = RequestState(request=request)
        self.reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.texts.begin(request)

    def emit(self, token_ids: Sequence[int]) -> int:
        """Number of tokens of the run that were kept."""
        kept, stop = self.texts.check(self.state, tuple(token_ids))
        self.state.token_ids.extend(token_ids[:kept])
        if stop is not None:
            self.reason, self.stop_reason = stop.reason, stop.stop_reason
        return kept

    def emit_in_runs(self, token_ids: Sequence[int], rng: random.Random) -> None:
        start = 0
        while start < len(token_ids) and self.reason is None:
            run = token_ids[start : start + rng.randrange(1, 7)]
            kept = self.emit(run)
            assert kept == len(run) or self.reason is not None
            start += len(run)

    @property
    def text(self) -> str:
        """Asked once, at the end."""
        return self.texts.end("r")[1]


def visible(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Text of the tokens, but for bytes at its end that may become a character."""
    return tokenizer.decode(token_ids).rstrip(REPLACEMENT)


def brute_force(
    tokenizer: Tokenizer, token_ids: list[int], stops: list[str], min_tokens: int
) -> tuple[int, str] | None:
    """Tokens kept, and the text: of the first prefix that holds a stop which an earlier one does not hold."""
    for count in range(max(1, min_tokens), len(token_ids) + 1):
        text, old = visible(tokenizer, token_ids[:count]), len(visible(tokenizer, token_ids[: count - 1]))
        starts = [
            start
            for stop in stops
            for start in range(len(text))
            if text.startswith(stop, start) and start + len(stop) > old
        ]
        if starts:
            return count, text[: min(starts)]
    return None


def random_output(tokenizer: Tokenizer, rng: random.Random) -> list[int]:
    """Words, characters of several bytes, single bytes."""
    size = len(tokenizer._tokenizer)
    token_ids: list[int] = []
    while len(token_ids) < 30:
        token_ids += tokenizer.encode(rng.choice(SENTENCES))[: rng.randrange(1, 9)]
        token_ids += [rng.randrange(2, size) for _ in range(rng.randrange(3))]
    return token_ids


@pytest.mark.parametrize("seed", range(6))
def test_output_ends_where_a_search_over_all_prefixes_finds_the_first_stop(byte_level: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    num_stopped = 0
    for _ in range(60):
        token_ids = random_output(byte_level, rng)
        whole = byte_level.decode(token_ids)
        stops = []
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(whole))
            stops.append(whole[start : start + rng.randrange(1, 7)])
        min_tokens = rng.choice((0, 0, 5, 20))
        output = Output(byte_level, new_request(stop=stops, min_tokens=min_tokens, eos=()))
        output.emit_in_runs(token_ids, rng)
        found = brute_force(byte_level, token_ids, stops, min_tokens)
        details = f"stops={stops} min_tokens={min_tokens} ids={token_ids}"
        text = output.text
        if found is None:
            assert output.reason is None, details
            continue
        num_stopped += 1
        assert output.state.output_token_ids == token_ids[: found[0]], details
        assert (text, output.reason) == (found[1], FinishReason.STOP), details
        assert output.stop_reason in stops
        if not min_tokens:
            assert not any(stop in text for stop in stops), details
    assert num_stopped > 20


@pytest.mark.parametrize("seed", range(4))
def test_text_without_a_stop_is_the_text_of_all_tokens(byte_level: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        token_ids = random_output(byte_level, rng)
        output = Output(byte_level, new_request(max_tokens=len(token_ids), eos=()))
        output.emit_in_runs(token_ids, rng)
        assert output.reason is FinishReason.LENGTH
        assert output.text == byte_level.decode(token_ids)


@pytest.mark.parametrize("seed", range(6))
def test_pieces_given_on_the_way_add_up_to_the_text(byte_level: Tokenizer, seed: int) -> None:
    """A caller who streams never gets characters that a stop string cuts off later."""
    rng = random.Random(seed)
    num_cut = 0
    for _ in range(12):
        token_ids = random_output(byte_level, rng)
        whole = byte_level.decode(token_ids)
        start = rng.randrange(len(whole) - 8)
        stop = whole[start : start + rng.randrange(2, 8)]
        output = Output(byte_level, new_request(stop=stop, eos=()))
        pieces: list[str] = []
        for token_id in token_ids:
            output.emit([token_id])
            if output.reason is not None:
                break
            pieces.append(output.texts.take("r"))
        last, text = output.texts.end("r")
        assert "".join(pieces) + last == text
        num_cut += output.reason is FinishReason.STOP
    assert num_cut > 3, "stop strings were met"


def test_stop_string_is_found_across_tokens_inside_a_run_of_drafts(byte_level: Tokenizer) -> None:
    before, behind = byte_level.encode("the fox S"), byte_level.encode("P there")
    output = Output(byte_level, new_request(stop="STOP"))
    assert output.emit(before) == len(before)
    run = [*byte_level.encode("TO"), *behind]
    kept = output.emit(run)
    assert byte_level.decode(run[:kept]).startswith("TOP")
    assert not byte_level.decode(run[: kept - 1]).startswith("TOP"), "the last token kept completes the stop"
    assert (output.reason, output.stop_reason) == (FinishReason.STOP, "STOP")
    assert output.text == "the fox "


def test_earliest_of_several_stops_wins_and_the_longest_that_starts_there(byte_level: Tokenizer) -> None:
    token = next(
        token_id
        for token_id in range(len(byte_level._tokenizer))
        if len(byte_level.decode([token_id])) > 4 and REPLACEMENT not in byte_level.decode([token_id])
    )
    word = byte_level.decode([token])
    for stops, cut, reason in (
        ([word[3], word[1:3]], 1, word[1:3]),
        ([word[1], word[1:4], word[1:3]], 1, word[1:4]),
        ([word[2:], word], 0, word),
    ):
        output = Output(byte_level, new_request(stop=stops))
        assert output.emit([token]) == 1
        assert (output.stop_reason, output.text) == (reason, word[:cut])


def test_stop_string_of_many_bytes_waits_for_its_last_byte(byte_level: Tokenizer) -> None:
    single = {byte_level._backend.id_to_token(token_id): token_id for token_id in range(len(byte_level._tokenizer))}
    # the four bytes of the character as byte-level BPE writes them: f0 9f 99 83
    token_ids = [single[character] for character in "ðŁĻĥ"]
    assert byte_level.decode(token_ids) == "🙃"
    output = Output(byte_level, new_request(stop="🙃"))
    words = byte_level.encode("fox")
    assert output.emit([*words, *token_ids[:3]]) == len(words) + 3
    assert output.reason is None
    assert output.emit([token_ids[3], *words]) == 1
    assert (output.reason, output.text) == (FinishReason.STOP, "fox")


def test_stop_string_before_an_unfinished_character_is_found_at_once(byte_level: Tokenizer) -> None:
    """A token that holds a space and the first bytes of a character completes the stop ' '."""
    mixed = next(
        token_id
        for token_id in range(len(byte_level._tokenizer))
        if byte_level.decode([token_id]).startswith(" ") and byte_level.decode([token_id]).endswith(REPLACEMENT)
    )
    words = byte_level.encode("fox")
    output = Output(byte_level, new_request(stop=" "))
    assert output.emit([*words, mixed, *words]) == len(words) + 1
    assert (output.reason, output.text) == (FinishReason.STOP, "fox")


def test_stop_string_in_what_was_held_back_is_not_in_the_text(byte_level: Tokenizer) -> None:
    words = byte_level.encode("fox")
    single = {byte_level._backend.id_to_token(token_id): token_id for token_id in range(len(byte_level._tokenizer))}
    output = Output(byte_level, new_request(stop=REPLACEMENT, max_tokens=len(words) + 1))
    assert output.emit([*words, single["ð"]]) == len(words) + 1
    assert (output.reason, output.text) == (FinishReason.LENGTH, "fox")


def test_stop_string_before_min_tokens_does_not_count(byte_level: Tokenizer) -> None:
    words = byte_level.encode("fox")
    stop = byte_level.encode(";")
    output = Output(byte_level, new_request(stop=";", min_tokens=len(words) + 2))
    assert output.emit([*words, *stop, *words, *stop, *words]) == 2 * len(words) + 2
    assert output.text == "fox;fox"
    at_least = Output(byte_level, new_request(stop=";", min_tokens=len(words) + 1))
    assert at_least.emit([*words, *stop, *words]) == len(words) + 1, "min_tokens tokens are enough"


def test_stop_that_began_before_min_tokens_counts_when_it_ends_behind(byte_level: Tokenizer) -> None:
    token_ids = byte_level.encode("fox") + byte_level.encode("1") + byte_level.encode("2")
    output = Output(byte_level, new_request(stop="12", min_tokens=len(token_ids) - 1))
    assert output.emit(token_ids) == len(token_ids)
    assert (output.reason, output.text) == (FinishReason.STOP, "fox")


def test_stop_token_id_ends_the_output_and_its_text_is_not_returned(byte_level: Tokenizer) -> None:
    words, stop = byte_level.encode("fox"), byte_level.encode("!")[0]
    output = Output(byte_level, new_request(stop_token_ids=[stop, 7]))
    assert output.emit([*words, stop, *words]) == len(words) + 1
    assert (output.reason, output.stop_reason) == (FinishReason.STOP, stop)
    assert output.state.output_token_ids == [*words, stop]
    assert output.text == "fox"


@pytest.mark.parametrize("eos", [(END,), (9, END), (END, 9)])
def test_any_eos_ends_the_output_without_a_stop_reason(byte_level: Tokenizer, eos: tuple[int, ...]) -> None:
    words = byte_level.encode("fox")
    output = Output(byte_level, new_request(eos=eos))
    assert output.emit([*words, END, *words]) == len(words) + 1
    assert (output.reason, output.stop_reason, output.text) == (FinishReason.STOP, None, "fox")


def test_output_goes_on_after_an_eos_that_is_ignored(byte_level: Tokenizer) -> None:
    words = byte_level.encode("fox")
    run = [*words, END, *words]
    output = Output(byte_level, new_request(eos=(), ignore_eos=True))
    assert output.emit(run) == len(run)
    assert (output.reason, output.text) == (None, "foxfox")


def test_eos_that_is_also_a_stop_token_id_is_the_stop_reason(byte_level: Tokenizer) -> None:
    output = Output(byte_level, new_request(stop_token_ids=[END]))
    assert output.emit([5, END]) == 2
    assert output.stop_reason == END


def test_output_ends_at_max_tokens_inside_a_run(byte_level: Tokenizer) -> None:
    words = byte_level.encode("the quick brown fox")
    output = Output(byte_level, new_request(max_tokens=3))
    assert output.emit(words[:2]) == 2
    assert output.emit(words[2:]) == 1
    assert (output.reason, output.stop_reason) == (FinishReason.LENGTH, None)
    assert output.text == byte_level.decode(words[:3])


def test_stop_at_the_last_token_is_a_stop(byte_level: Tokenizer) -> None:
    words, stop = byte_level.encode("fox"), byte_level.encode(";")
    output = Output(byte_level, new_request(stop=";", max_tokens=len(words) + 1))
    output.emit([*words, *stop])
    assert output.reason is FinishReason.STOP
    by_eos = Output(byte_level, new_request(max_tokens=len(words) + 1))
    by_eos.emit([*words, END])
    assert by_eos.reason is FinishReason.STOP


def test_unfinished_character_at_the_end_is_shown_as_the_tokenizer_shows_it(byte_level: Tokenizer) -> None:
    words = byte_level.encode("fox")
    single = {byte_level._backend.id_to_token(token_id): token_id for token_id in range(len(byte_level._tokenizer))}
    output = Output(byte_level, new_request())
    output.emit([*words, single["ð"]])
    assert output.texts._texts["r"].text == "fox"
    output.emit([END])
    assert output.text == "fox" + REPLACEMENT


def test_without_a_tokenizer_ids_stop_and_there_is_no_text() -> None:
    output = Output(None, new_request(stop_token_ids=[7]))
    assert output.emit([5, 6, 7, 8]) == 3
    assert (output.reason, output.stop_reason, output.text) == (FinishReason.STOP, 7, "")
