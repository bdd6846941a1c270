"""Limits of sampling parameters: each refusal names parameter, value, range and remedy."""

from typing import Any

import pytest

from outrider.core.errors import OutriderError, RequestError
from outrider.core.sampling_params import (
    MAX_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_LOGPROBS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)

NAN, INFINITY = float("nan"), float("inf")


def refusal(**fields: Any) -> str:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**fields)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, OutriderError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "low", "high", "remedy"),
    [
        ("temperature", 0.0, 1e4, "0 is greedy."),
        ("top_p", 0.0, 1.0, "1 keeps all tokens."),
        ("min_p", 0.0, 1.0, "0 keeps all tokens."),
        ("repetition_penalty", 1e-3, 1e3, "1 changes nothing."),
        ("presence_penalty", -2.0, 2.0, "0 changes nothing."),
        ("frequency_penalty", -2.0, 2.0, "0 changes nothing."),
    ],
)
def test_number_out_of_range_is_refused(name: str, low: float, high: float, remedy: str) -> None:
    for value in (low - 0.01, high * 1.01 + 0.01, NAN, INFINITY, -INFINITY, "1", None, True, [1.0]):
        message = refusal(**{name: value})
        assert message == f"{name}={value!r} is out of range: it takes a number from {low} to {high}. {remedy}"
    for value in (high, (low + high) / 2, 1):
        assert getattr(SamplingParams(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("top_k", -1, 2**31 - 1),
        ("min_tokens", 0, 2**31 - 1),
        ("max_tokens", 1, 2**31 - 1),
        ("seed", -(2**63), 2**63 - 1),
        ("logprobs", 0, MAX_LOGPROBS),
        ("prompt_logprobs", 0, MAX_LOGPROBS),
        ("n", 1, MAX_CHOICES),
        ("num_speculative_tokens", 0, 2**31 - 1),
        ("truncate_prompt_tokens", -1, 2**31 - 1),
        ("priority", -(2**31), 2**31 - 1),
    ],
)
def test_integer_out_of_range_is_refused(name: str, low: int, high: int) -> None:
    for value in (low - 1, high + 1, 1.0, NAN, "1", True, [1]):
        message = refusal(**{name: value})
        assert message.startswith(f"{name}={value!r} is out of range: it takes an integer from {low} to {high}. ")
        assert message.endswith(".") and not message.endswith(f"{high}. ")
    for value in (low, high):
        fields = {name: value} if name != "min_tokens" else {name: value, "max_tokens": None}
        assert getattr(SamplingParams(**fields), name) == value


@pytest.mark.parametrize("name", ["best_of", "logits_processors"])
def test_what_is_not_offered_is_refused_by_name_with_a_remedy(name: str) -> None:
    assert refusal(**{name: 2}).startswith(f"{name}=2 is not offered. ")
    SamplingParams(**{name: None})


@pytest.mark.parametrize("name", ["detokenize", "echo", "include_stop_str_in_output", "skip_special_tokens"])
def test_a_choice_takes_true_or_false_only(name: str) -> None:
    assert refusal(**{name: 1}) == f"{name}=1 must be True or False."


@pytest.mark.parametrize("name", ["bad_words", "allowed_token_ids", "logprob_token_ids"])
def test_a_list_that_is_none_is_refused(name: str) -> None:
    for value in ("ab", 5, {1: 2}):
        assert refusal(**{name: value}).startswith(f"{name}={value!r} is a {type(value).__name__}. Use a list of ")


@pytest.mark.parametrize("word", ["", "  ", [], 5, None, b"a", [1, -1], ["a"], [True]])
def test_a_bad_word_that_is_none_is_refused(word: Any) -> None:
    assert refusal(bad_words=["good", word]).startswith("bad_words")


def test_lists_of_ids_are_refused_where_they_cannot_hold() -> None:
    assert refusal(allowed_token_ids=[]) == "allowed_token_ids=[] allows nothing. Leave it unset to allow every token."
    assert refusal(allowed_token_ids=[3, -1]).startswith("allowed_token_ids=-1 is out of range")
    assert refusal(logprob_token_ids=[1.0]).startswith("logprob_token_ids=1.0 is out of range")
    most = MAX_LOGPROB_TOKEN_IDS
    assert f"at most {most} fit" in refusal(logprob_token_ids=list(range(most + 1)))
    SamplingParams(logprob_token_ids=list(range(most)))


def test_text_is_refused_where_none_is_made() -> None:
    assert refusal(detokenize=False, stop="a").startswith("stop='a' needs text, and detokenize=False makes none.")
    assert refusal(detokenize=False, echo=True).startswith("echo=True needs text, and detokenize=False makes none.")


def test_a_prompt_cut_to_nothing_is_refused() -> None:
    assert refusal(truncate_prompt_tokens=0) == "truncate_prompt_tokens=0 leaves no prompt. Give 1 or more, or -1."


def test_log_probabilities_by_id_ask_for_those_of_the_chosen_token() -> None:
    assert SamplingParams().num_logprobs is None
    assert SamplingParams(logprob_token_ids=[3]).num_logprobs == 0
    assert SamplingParams(logprob_token_ids=[3], logprobs=4).num_logprobs == 4


def test_top_p_of_zero_is_refused_with_what_was_meant() -> None:
    assert refusal(top_p=0.0) == "top_p=0 keeps no token. Use temperature=0 for the most likely token."


def test_min_tokens_above_max_tokens_is_refused() -> None:
    assert refusal(min_tokens=9, max_tokens=8) == "min_tokens=9 is above max_tokens=8. Lower min_tokens."
    SamplingParams(min_tokens=8, max_tokens=8)
    SamplingParams(min_tokens=9, max_tokens=None)


@pytest.mark.parametrize("stop", ["", ["a", ""], ["a", 5], [None], [b"a"]])
def test_stop_that_is_no_text_is_refused(stop: Any) -> None:
    message = refusal(stop=stop)
    assert f"stop={stop!r} holds " in message
    assert message.endswith("stop strings are non-empty text.")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("stop", 5, "one text or a list of texts"),
        ("stop", {"a"}, "one text or a list of texts"),
        ("stop_token_ids", 5, "a list of token ids"),
        ("stop_token_ids", "5", "a list of token ids"),
        ("logit_bias", [5], "a dict of token id to number"),
    ],
)
def test_container_of_the_wrong_kind_is_refused(name: str, value: Any, remedy: str) -> None:
    assert refusal(**{name: value}) == f"{name}={value!r} is a {type(value).__name__}. Use {remedy}."


@pytest.mark.parametrize("token_id", [-1, 1.0, "3", True, None])
def test_token_ids_that_are_none_are_refused(token_id: Any) -> None:
    assert refusal(stop_token_ids=[3, token_id]).startswith(f"stop_token_ids={token_id!r} is out of range")
    assert refusal(logit_bias={token_id: 1.0}).startswith(f"logit_bias={token_id!r} is out of range")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, "1", None, True])
def test_bias_that_is_not_finite_is_refused(value: Any) -> None:
    assert refusal(logit_bias={7: value}) == f"logit_bias[7]={value!r} is not a finite number."


def test_tables_of_the_device_limit_how_many_fit() -> None:
    most = MAX_STOP_TOKEN_IDS - 8
    SamplingParams(stop_token_ids=list(range(most)))
    assert f"has {most + 1} ids; at most {most} fit" in refusal(stop_token_ids=list(range(most + 1)))
    SamplingParams(logit_bias=dict.fromkeys(range(MAX_LOGIT_BIAS), 1.0))
    message = refusal(logit_bias=dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 1.0))
    assert f"has {MAX_LOGIT_BIAS + 1} entries; at most {MAX_LOGIT_BIAS} fit" in message


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_ignore_eos_is_true_or_false(value: Any) -> None:
    assert refusal(ignore_eos=value) == f"ignore_eos={value!r} must be True or False."


def test_unknown_parameter_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="use_beam_search"):
        SamplingParams(use_beam_search=True)  # type: ignore[call-arg]


def test_parameters_are_named_and_frozen() -> None:
    with pytest.raises(TypeError):
        SamplingParams(1)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        SamplingParams().temperature = 0.5  # type: ignore[misc]


def test_properties_say_what_work_a_row_needs() -> None:
    assert SamplingParams(temperature=0.0).is_greedy and SamplingParams(temperature=9e-6).is_greedy
    assert not SamplingParams(temperature=1e-5).is_greedy
    assert SamplingParams(stop="a").stop_strings == ["a"]
    assert SamplingParams(stop=["a", "b"]).stop_strings == ["a", "b"]
    assert SamplingParams().stop_strings == []
    for fields in ({"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert SamplingParams(**fields).has_truncation
        assert not SamplingParams(temperature=0.0, **fields).has_truncation, "greedy rows lose nothing"
    assert not SamplingParams(top_k=-1).has_truncation
    for fields in ({"repetition_penalty": 1.1}, {"presence_penalty": -0.1}, {"frequency_penalty": 0.1}):
        assert SamplingParams(**fields).has_penalties
    assert not SamplingParams().has_penalties
