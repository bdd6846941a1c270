"""Fields and values that ask for nothing are taken and change nothing; what asks for something is refused by name."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from outrider.core.sampling_defaults import SamplingDefaults
from outrider.server.body import explain
from outrider.server.chat import ChatRequest
from outrider.server.chat_messages import plain_message
from outrider.server.completions import CompletionRequest
from outrider.server.strict import asks_for_nothing
from outrider.server.tokens import DetokenizeRequest, TokenizeRequest
from tests.support.http_calls import post
from tests.support.server_under_test import ServerUnderTest

USER = {"role": "user", "content": "What is 2+2?"}
CHAT: dict[str, Any] = {"messages": [USER]}
TEXT: dict[str, Any] = {"prompt": "def f(x):\n"}
CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}

NEUTRAL: list[dict[str, Any]] = [
    {"store": False},
    {"metadata": {}},
    {"metadata": None},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"prompt_cache_key": "k", "safety_identifier": "u", "user": "me"},
    {"n": 1, "best_of": 1},
    {"stop": [], "logit_bias": {}, "bad_words": [], "stop_token_ids": [], "logprob_token_ids": []},
    {"stream_options": {}},
    {"stream_options": {"include_usage": False}},
    {"response_format": {"type": "text"}},
    {"use_beam_search": False, "length_penalty": 1.0, "early_stopping": False},
    {"suffix": "", "guided_json": None, "kv_transfer_params": {}, "vllm_xargs": {}},
    {"an_extension": None, "another": [], "a_third": {"inner": None}},
]
NEUTRAL_CHAT: list[dict[str, Any]] = [
    {"functions": None},
    {"functions": [], "function_call": "none"},
    {"modalities": ["text"]},
    {"audio": None, "prediction": None, "web_search_options": None},
    {"reasoning_effort": None, "verbosity": "medium"},
    {"tools": [], "tool_choice": "auto"},
    {"tool_choice": "none", "parallel_tool_calls": False},
    {"top_logprobs": 0},
    {"logprobs": False, "top_logprobs": 0},
    {"add_special_tokens": False},
    {"documents": [], "chat_template_kwargs": {}},
    {"echo": False},
]
ASKS: list[tuple[dict[str, Any], str]] = [
    ({"store": True}, "store=true is not offered. Only responses of /v1/responses are stored"),
    ({"metadata": {"a": "b"}}, "metadata is not offered"),
    ({"service_tier": "flex"}, 'service_tier="flex" is not offered'),
    ({"echo": 0}, "echo=0 is refused"),
    ({"best_of": 2}, "best_of=2 is not offered. Use n"),
    ({"use_beam_search": True}, "use_beam_search=true is not offered"),
    ({"length_penalty": 0.5}, "length_penalty=0.5 is not offered"),
    ({"functions": [{"name": "f"}]}, "functions is not offered. Use tools"),
    ({"modalities": ["audio"]}, 'modalities[0]="audio" is not offered'),
    ({"extra_body": {"top_k": 5}}, "extra_body is not offered. It is an argument of the openai client"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        'messages[0].content[0].type="image_url" is not offered. Only text is supported',
    ),
    ({"web_search_options": {}}, "web_search_options={} is not offered"),
    ({"an_extension": False}, "an_extension is not a known field"),
    ({"an_extension": {"a": {"b": 0}}}, "an_extension is not a known field"),
    ({"temprature": 1}, "Did you mean temperature?"),
]
ANSWERS: list[dict[str, Any]] = [
    {"reasoning": None},
    {"reasoning_content": ""},
    {"provider_specific_fields": None},
    {"provider_specific_fields": {"refusal": None}},
    {"thinking_blocks": []},
    {"refusal": None, "audio": None, "annotations": [], "function_call": None},
    {"tool_calls": []},
    {"tool_calls": None},
    {"parsed": {"x": 1}},
    {"prefix": False},
    {"cache_control": {"type": "ephemeral"}},
]
"""Fields that clients add to an earlier answer before they send it back."""


def read(model: type[BaseModel], body: dict[str, Any]) -> Any:
    return model.model_validate_json(json.dumps(body))


def refusal(model: type[BaseModel], body: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        read(model, body)
    return str(explain(error.value, model))


@pytest.mark.parametrize("fields", [*NEUTRAL, *NEUTRAL_CHAT], ids=json.dumps)
def test_values_that_ask_for_nothing_are_taken(fields: dict[str, Any]) -> None:
    rest: Any = {"max_tokens": 4, "logprobs": None, "defaults": SamplingDefaults()}
    parameters = read(ChatRequest, CHAT | fields).to_params(**rest)
    plain = read(ChatRequest, CHAT).to_params(**rest)
    assert all(
        getattr(parameters, name) == getattr(plain, name) or not (getattr(parameters, name) or getattr(plain, name))
        for name in plain.__dataclass_fields__
    )
    if fields in NEUTRAL:
        read(CompletionRequest, TEXT | fields)


@pytest.mark.parametrize("model", [ChatRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest])
def test_null_is_taken_in_every_field_that_is_not_required(model: type[BaseModel]) -> None:
    required = {"messages": [USER], "prompt": "a", "tokens": [1]}
    body = dict.fromkeys(model.model_fields) | {
        name: value for name, value in required.items() if name in model.model_fields
    }
    read(model, body)


@pytest.mark.parametrize(("fields", "says"), ASKS)
def test_values_that_ask_for_something_are_refused_by_name(fields: dict[str, Any], says: str) -> None:
    assert says in refusal(ChatRequest, CHAT | fields)


def test_empty_values_are_told_from_others() -> None:
    nothing: list[Any] = [None, "", [], {}, [None], [[]], {"a": None}, {"a": {}, "b": []}]
    something: list[Any] = [0, False, "x", [0], {"a": 0}, {"a": {"b": None}}, [[None]]]
    assert all(map(asks_for_nothing, nothing)) and not any(map(asks_for_nothing, something))


@pytest.mark.parametrize("fields", ANSWERS, ids=json.dumps)
def test_an_answer_can_be_sent_back_with_what_clients_add_to_it(fields: dict[str, Any]) -> None:
    body = read(ChatRequest, {"messages": [USER, {"role": "assistant", "content": "4"} | fields, USER]})
    assert plain_message(body.messages[1]) == {"role": "assistant", "content": "4"}


def test_reasoning_has_all_its_names_for_the_template() -> None:
    both = {"reasoning": "hm", "reasoning_content": "hm"}
    wanted = {"role": "assistant", "content": "4", **both, "thinking": "hm"}
    for name in both:
        body = read(ChatRequest, {"messages": [{"role": "assistant", "content": "4", name: "hm"}]})
        assert plain_message(body.messages[0]) == wanted
    for content, names in (("", {*both, "thinking"}), ("4", set(both))):
        message = {"role": "assistant", "content": content, "reasoning": "hm", "tool_calls": [CALL]}
        found = plain_message(read(ChatRequest, {"messages": [message]}).messages[0])
        assert {name for name, value in found.items() if value == "hm"} == names


def test_calls_and_parts_come_without_what_was_added_to_them() -> None:
    added = CALL | {"index": 0, "type": None}
    added["function"] = {"name": "f", "arguments": "{}", "parsed_arguments": {}}
    part = {"type": "text", "text": "1", "cache_control": {"type": "ephemeral"}, "annotations": []}
    messages = [
        {"role": "assistant", "content": [], "tool_calls": [added]},
        {"role": "tool", "tool_call_id": "c", "content": [part]},
    ]
    answer, result = read(ChatRequest, {"messages": messages}).messages
    assert plain_message(answer) == {"role": "assistant", "content": "", "tool_calls": [CALL | {"type": "function"}]}
    assert plain_message(result)["content"] == [{"type": "text", "text": "1"}]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"refusal": "no"}, "messages[0].refusal is not offered. Put its text into content"),
        ({"audio": {"id": "a"}}, "messages[0].audio is not offered"),
        ({"prefix": True}, "messages[0].prefix=true is not offered. Use continue_final_message"),
        ({"thinking_blocks": [{"thinking": "hm"}]}, "messages[0].thinking_blocks is not a known field"),
        ({"tool_calls": [CALL | {"custom": {"input": "x"}}]}, "messages[0].tool_calls[0].custom is not a known field"),
    ],
)
def test_what_would_be_lost_from_a_message_is_refused(message: dict[str, Any], says: str) -> None:
    assert says in refusal(ChatRequest, {"messages": [{"role": "assistant", "content": "x"} | message]})


def test_a_constraint_may_come_with_nulls_for_the_others() -> None:
    given = {"regex": "a+", "json": None, "choice": None, "grammar": None, "json_object": None}
    asked = read(CompletionRequest, TEXT | {"structured_outputs": given | {"disable_any_whitespace": False}})
    assert asked.structured_outputs.to_params().regex == "a+"


def test_the_published_schema_says_which_unknown_fields_are_taken() -> None:
    schema = Draft202012Validator(ChatRequest.model_json_schema())
    for fields in (*NEUTRAL, *NEUTRAL_CHAT):
        assert schema.is_valid(CHAT | fields), fields
    for fields, _ in ASKS:
        assert not schema.is_valid(CHAT | fields), fields


def test_neutral_fields_change_no_answer(server: ServerUnderTest) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        status, found, _ = post(server, path, body | {"temperature": 0, "max_tokens": 6})
        assert status == 200, found
        (choice,) = found["choices"]
        return choice.get("message", choice.get("text"))

    every: dict[str, Any] = {}
    for fields in NEUTRAL:
        every |= fields
    assert answer("v1/completions", TEXT | every) == answer("v1/completions", TEXT)
    for fields in NEUTRAL_CHAT:
        every |= fields
    assert answer("v1/chat/completions", CHAT | every) == answer("v1/chat/completions", CHAT)
