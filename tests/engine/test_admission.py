"""Limits of a request: every refusal names the value, the reason and the remedy."""

from typing import Any

import pytest

from outrider.core.errors import OutriderError, RequestError
from outrider.core.sampling_params import MAX_STOP_TOKEN_IDS, SamplingParams
from outrider.engine.admission import Admission
from outrider.engine.tokenizer import Tokenizer

VOCAB_SIZE = 420


def admission(tokenizer: Tokenizer | None = None, **changes: Any) -> Admission:
    values = {
        "tokenizer": tokenizer,
        "vocab_size": VOCAB_SIZE,
        "max_model_len": 50,
        "eos_token_ids": (0,),
        "seed": 5,
    }
    return Admission(**{**values, **changes})


def ids(count: int) -> dict[str, list[int]]:
    return {"prompt_token_ids": [1 + index % 9 for index in range(count)]}


def refusal(prompt: Any, params: SamplingParams | None = None, tokenizer: Tokenizer | None = None) -> str:
    """The message of a refusal, which must be a RequestError, a ValueError and one of this package's errors."""
    with pytest.raises(RequestError) as caught:
        admission(tokenizer).request(prompt, params or SamplingParams(), request_id="r")
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, OutriderError)
    return str(caught.value)


def test_text_becomes_tokens_and_is_kept(byte_level: Tokenizer) -> None:
    request = admission(byte_level).request("the fox", SamplingParams(max_tokens=8), request_id="x")
    assert (request.request_id, request.prompt) == ("x", "the fox")
    assert request.prompt_token_ids == tuple(byte_level.encode("the fox"))
    assert request.max_total_tokens == len(request.prompt_token_ids) + 8
    assert request.eos_token_ids == (0,)


def test_token_ids_are_taken_as_they_are_and_copied() -> None:
    prompt = {"prompt_token_ids": [3, 4, 5], "prompt": "shown"}
    request = admission().request(prompt, SamplingParams(), request_id="x")
    prompt["prompt_token_ids"].append(6)  # type: ignore[attr-defined]
    assert (request.prompt_token_ids, request.prompt) == ((3, 4, 5), "shown")


def test_a_prompt_that_is_cut_keeps_its_last_tokens() -> None:
    prompt = {"prompt_token_ids": [3, 4, 5, 6, 7]}
    request = admission().request(prompt, SamplingParams(truncate_prompt_tokens=2), request_id="x")
    assert request.prompt_token_ids == (6, 7)
    long = {"prompt_token_ids": list(range(1, 90))}
    request = admission().request(long, SamplingParams(truncate_prompt_tokens=-1, max_tokens=10), request_id="y")
    assert request.prompt_token_ids == tuple(range(50, 90)) and request.max_total_tokens == 50


def test_a_bad_word_is_forbidden_with_and_without_a_space_before_it(byte_level: Tokenizer) -> None:
    for word in ("fox", " fox"):
        request = admission(byte_level).request("the", SamplingParams(bad_words=[word]), request_id="x")
        bare, spaced = (tuple(byte_level.encode(text, add_special_tokens=False)) for text in ("fox", " fox"))
        forms = [bare, spaced] if len(bare) == len(spaced) and bare[0] != spaced[0] else [bare]
        assert list(request.bad_words) == forms
    one = next(text for text in map(chr, range(97, 123)) if _has_two_forms(byte_level, text))
    request = admission(byte_level).request("the", SamplingParams(bad_words=[one]), request_id="y")
    assert len(request.bad_words) == 2


def _has_two_forms(tokenizer: Tokenizer, text: str) -> bool:
    """A token for the text alone, and another one for the text behind a space."""
    return all(len(tokenizer.encode(form, add_special_tokens=False)) == 1 for form in (text, f" {text}"))


def test_output_is_limited_by_max_tokens_and_by_max_model_len() -> None:
    made = admission()
    assert made.request(ids(10), SamplingParams(max_tokens=5), request_id="a").max_total_tokens == 15
    assert made.request(ids(10), SamplingParams(max_tokens=None), request_id="b").max_total_tokens == 50
    assert made.request(ids(10), SamplingParams(max_tokens=99), request_id="c").max_total_tokens == 50
    assert made.request(ids(49), SamplingParams(max_tokens=99), request_id="d").max_total_tokens == 50


def test_ignored_eos_is_no_stop_token() -> None:
    params = SamplingParams(ignore_eos=True, stop_token_ids=[4])
    assert admission().request(ids(3), params, request_id="a").eos_token_ids == ()


def test_given_seed_is_used_and_a_missing_one_is_drawn_and_reported() -> None:
    made = admission()
    assert made.request(ids(3), SamplingParams(seed=-7), request_id="a").seed == -7
    assert made.request(ids(3), SamplingParams(seed=0), request_id="b").seed == 0
    drawn = [made.request(ids(3), SamplingParams(), request_id=str(index)).seed for index in range(20)]
    assert len(set(drawn)) == 20
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert all(SamplingParams(seed=seed).seed == seed for seed in drawn), "what is reported can be given again"


def test_equal_engine_seeds_draw_equal_seeds() -> None:
    def drawn(seed: int) -> list[int]:
        made = admission(seed=seed)
        return [made.request(ids(3), SamplingParams(), request_id=str(index)).seed for index in range(10)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_given_seeds_and_refusals_do_not_shift_the_seeds_drawn_later() -> None:
    plain, disturbed = admission(), admission()
    disturbed.request(ids(3), SamplingParams(seed=1), request_id="a")
    with pytest.raises(RequestError):
        disturbed.request(ids(99), SamplingParams(), request_id="b")
    drawn = [made.request(ids(3), SamplingParams(), request_id="c").seed for made in (plain, disturbed)]
    assert drawn[0] == drawn[1]


def test_empty_prompts_are_refused(byte_level: Tokenizer) -> None:
    assert refusal("", tokenizer=byte_level) == "prompt='' is empty. Give at least one token."
    assert refusal({"prompt_token_ids": []}) == "prompt_token_ids=[] is empty. Give at least one token."


def test_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    for count in (50, 51, 400):
        message = refusal(ids(count))
        assert f"the prompt has {count} tokens and max_model_len=50" in message
        assert "Shorten the prompt or raise max_model_len" in message
    admission().request(ids(49), SamplingParams(), request_id="fits")


@pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, 10**12, 1.5, True, "a", None])
def test_id_outside_the_vocabulary_is_refused_by_value(token_id: Any) -> None:
    message = refusal({"prompt_token_ids": [1, token_id, 2]})
    assert message == f"prompt_token_ids holds {token_id!r}, which is not a token id. Use 0 to {VOCAB_SIZE - 1}."


def test_stop_ids_and_biases_outside_the_vocabulary_are_refused_by_name() -> None:
    assert f"stop_token_ids holds {VOCAB_SIZE}" in refusal(ids(3), SamplingParams(stop_token_ids=[1, VOCAB_SIZE]))
    assert f"logit_bias holds {VOCAB_SIZE}" in refusal(ids(3), SamplingParams(logit_bias={VOCAB_SIZE: 1.0}))


def test_text_without_a_tokenizer_is_refused() -> None:
    assert "prompt='hi' is text, and there is no tokenizer. Pass {'prompt_token_ids': [...]}" in refusal("hi")
    message = refusal(ids(3), SamplingParams(stop=["END"]))
    assert message == "stop=['END'] needs text, and there is no tokenizer. Use stop_token_ids."


@pytest.mark.parametrize(
    "prompt",
    [None, 5, [1, 2, 3], {}, {"prompt": "text"}, b"text"],
)
def test_prompt_of_another_form_is_refused_with_the_forms_there_are(prompt: Any, byte_level: Tokenizer) -> None:
    message = refusal(prompt, tokenizer=byte_level)
    assert repr(prompt) in message
    assert "Give text or {'prompt_token_ids': [...]}; use chat() for messages." in message


@pytest.mark.parametrize("name", ["multi_modal_data", "content_keys", "lora"])
def test_content_beside_ids_is_refused_by_name(name: str) -> None:
    """No caller can give any: it is not built, and ids alone would stand for it."""
    message = refusal({"prompt_token_ids": [1], name: {}})
    assert message == (
        f"prompt key {name!r} is not supported: a prompt is text or token ids. "
        "Give {'prompt_token_ids': [...]} or text."
    )
    assert admission().request(ids(3), SamplingParams(), request_id="a").content_keys == ()


@pytest.mark.parametrize("given", [5, None, "abc", b"abc", 1.5])
def test_ids_that_are_no_list_are_refused(given: Any) -> None:
    message = refusal({"prompt_token_ids": given})
    assert message == f"prompt_token_ids={given!r} is a {type(given).__name__}. Give a list of ids."


def test_more_stop_ids_than_fit_with_eos_are_refused() -> None:
    many = list(range(1, MAX_STOP_TOKEN_IDS - 7))
    made = admission(eos_token_ids=tuple(range(100, 109)))
    with pytest.raises(RequestError, match=rf"^33 stop ids .* at most {MAX_STOP_TOKEN_IDS} fit\. Shorten"):
        made.request(ids(3), SamplingParams(stop_token_ids=many), request_id="a")
    made.request(ids(3), SamplingParams(stop_token_ids=many, ignore_eos=True), request_id="b")
