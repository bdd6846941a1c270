"""Answers to wrong calls, API keys and origins, and the fields that vLLM's users send."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from outrider.server import answers
from outrider.server.not_offered import NOT_OFFERED
from outrider.server.openapi import up_to
from tests.support.http_calls import get, post, post_all
from tests.support.server_under_test import ServerUnderTest, serve

TEMPLATE = """{% for tool in tools or [] %}tool {{ tool.function.name }}
{% endfor %}{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}{{ mood }}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    template = tmp_path_factory.mktemp("api") / "template.jinja"
    template.write_text(TEMPLATE)
    options = {
        "--api-key": "secret",
        "--allowed-origins": "https://page.example",
        "--max-body-bytes": "20000",
        "--max-num-seqs": "2",
        "--max-queued-requests": "2",
        "--tool-call-parser": "hermes",
        "--chat-template": str(template),
        "--served-model-name": "small",
    }
    with serve(*(text for pair in options.items() for text in pair)) as started:
        yield started


def ask(server: ServerUnderTest, body: Any, path: str = "v1/completions") -> tuple[int, Any, dict[str, str]]:
    return post(server, path, body, Authorization="Bearer secret")


def refusal(server: ServerUnderTest, body: Any, path: str = "v1/completions") -> dict[str, Any]:
    status, answer, _ = ask(server, body, path)
    assert status == 400, answer
    answers.ErrorAnswer.model_validate(answer, strict=True)
    error: dict[str, Any] = answer["error"]
    return error


def test_start_up_says_what_was_chosen_in_at_most_15_lines(server: ServerUnderTest) -> None:
    assert len(server.start_up) <= 15
    said = "\n".join(server.start_up)
    for word in (
        "small",
        "attention backend",
        "drafter",
        "eagle3",
        "KV blocks",
        "exact",
        "process ",
        "429",
        "1 API key",
    ):
        assert word in said, word


WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, "prompt", "prompt is required and missing"),
    ({"prompt": ""}, "prompt", "at least 1 character"),
    ({"prompt": []}, "prompt", "at least 1 item"),
    ({"prompt": [5, 99999]}, None, "prompt_token_ids holds 99999"),
    ({"prompt": ["a", [1]]}, "prompt[0]", "prompt[1]=[1] is refused"),
    ({"prompt": "a", "tempreature": 1}, "tempreature", "Did you mean temperature?"),
    ({"prompt": "a", "temperature": "1"}, "temperature", 'temperature="1" is refused: Input should be a valid number'),
    ({"prompt": "a", "temperature": -0.5}, "temperature", "greater than or equal to 0"),
    ({"prompt": "a", "n": True}, "n", "valid integer"),
    ({"prompt": "a", "n": 129}, "n", "less than or equal to 128"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"prompt": "a", "min_tokens": 20, "max_tokens": 10}, None, "Lower min_tokens"),
    ({"prompt": "a", "stop": [""]}, "stop[0]", "at least 1 character"),
    ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias.x", "pattern"),
    ({"prompt": "a", "logit_bias": {"9999": 1}}, None, "logit_bias holds 9999"),
    ({"prompt": "a", "stop_token_ids": [4000]}, None, "Use 0 to 3071"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options", "stream_options needs stream: true"),
    ({"prompt": "a", "stream": True, "prompt_logprobs": 1}, "stream", "not streamed"),
    ({"prompt": "a", "structured_outputs": {"regex": "("}}, None, "Correct the grammar"),
    ({"prompt": "a", "structured_outputs": {"json": {"type": "no"}}}, None, "type is 'no'. Use one of"),
    ({"prompt": "a", "structured_outputs": {"regex": "a", "choice": ["b"]}}, None, "Give one of"),
    ({"prompt": "a", "structured_outputs": {"json": {"$ref": "#"}}}, None, "no finite JSON meets the schema"),
    ({"prompt": "a", "structured_outputs": {"grammar": 'root ::= "a" root'}, "stream": True}, None, "can never end"),
    ({"prompt": "a", "structured_outputs": {"json": '{"const": 1e999}'}}, None, "cannot be kept exactly"),
    ({"prompt": "a " * 3000}, None, "max_model_len=2048"),
    ({"prompt": "a", "truncate_prompt_tokens": 0}, None, "truncate_prompt_tokens=0"),
    ({"prompt": "a", "model": "big"}, "model", "Served: small"),
]


@pytest.mark.parametrize(("body", "param", "says"), WRONG, ids=lambda value: json.dumps(value)[:40])
def test_what_is_wrong_is_named_with_a_remedy(
    server: ServerUnderTest, body: dict[str, Any], param: str | None, says: str
) -> None:
    if body.get("model") == "big":
        status, answer, _ = ask(server, body)
        assert status == 404 and says in answer["error"]["message"]
        return
    error = refusal(server, body)
    assert says in error["message"] and error["param"] == param


@pytest.mark.parametrize("name", sorted(NOT_OFFERED))
def test_fields_that_are_not_offered_are_refused_by_name(server: ServerUnderTest, name: str) -> None:
    for path, rest in (
        ("v1/completions", {"prompt": "a"}),
        ("v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ):
        error = refusal(server, rest | {name: {"wish": 1}}, path)
        assert error["message"].startswith(name) and error["param"] == name
        assert error["message"].endswith(f" is not offered. {NOT_OFFERED[name]}")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"null", "object"),
        (b"[" * 10000, "recursion"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b'{"prompt": "a", "temperature": NaN}', "finite"),
        (b'{"prompt": "a", "seed": 1e999}', "seed"),
    ],
)
def test_bodies_that_are_none(server: ServerUnderTest, data: bytes, says: str) -> None:
    assert says in refusal(server, data)["message"]


def test_who_has_no_key_is_not_let_in(server: ServerUnderTest) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"x-api-key": "wrong"}):
        status, answer, found = post(server, "v1/completions", {"prompt": "a"}, **headers)
        assert status == 401 and answer["error"]["code"] == "invalid_api_key" and found["www-authenticate"] == "Bearer"
        assert get(server, "v1/models", **headers)[0] == post(server, "tokenize", {"prompt": "a"}, **headers)[0] == 401
    for open_path in ("health", "version", "metrics", "openapi.json", ""):
        assert get(server, open_path)[0] == 200
    assert get(server, "v1/models", Authorization="Bearer secret")[0] == 200
    assert get(server, "v1/models", **{"x-api-key": "secret"})[0] == 200
    status, answer, _ = post(server, "v1/messages", {})
    assert status == 401 and answer["error"]["type"] == "authentication_error" and answer["type"] == "error"


def test_only_allowed_pages_may_call(server: ServerUnderTest) -> None:
    origin = "https://page.example"
    assert ask(server, {"prompt": "a", "max_tokens": 1})[2].get("access-control-allow-origin") is None
    allowed = post(
        server, "v1/completions", {"prompt": "a", "max_tokens": 1}, Authorization="Bearer secret", Origin=origin
    )
    assert allowed[0] == 200 and allowed[2]["access-control-allow-origin"] == origin
    other = post(
        server, "v1/completions", {"prompt": "a"}, Authorization="Bearer secret", Origin="https://other.example"
    )
    assert other[2].get("access-control-allow-origin") is None
    assert other[0] == 403 and other[1]["error"]["code"] == "foreign_origin"
    for path in ("version", "nowhere", "metrics"):
        assert get(server, path)[2]["x-content-type-options"] == "nosniff"


def test_bodies_that_are_too_long_are_not_read(server: ServerUnderTest) -> None:
    status, answer, _ = ask(server, {"prompt": "a" * 20000})
    assert status == 413 and "20000" in answer["error"]["message"]
    with socket.create_connection(server.address) as raw:  # a body that does not say how long it is
        raw.sendall(b"POST /detokenize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n")
        raw.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            raw.sendall(b"2710\r\n" + b"a" * 10000 + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert (
        post(server, "v1/completions", b"a=1", Authorization="Bearer secret", **{"Content-Type": "text/plain"})[0]
        == 415
    )


def test_more_than_may_wait_are_sent_away(server: ServerUnderTest) -> None:
    long = {"prompt": "a", "max_tokens": 60, "ignore_eos": True}
    many = [{"Authorization": "Bearer secret"}] * 12
    status, answer, headers = ask(server, long | {"n": 5})
    assert status == 429 and int(headers["retry-after"]) >= 1 and "5 more are refused" in answer["error"]["message"]
    found = post_all_with_key(server, [long] * len(many))
    statuses = [status for status, _, _ in found]
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    for status, answer, headers in found:
        if status == 200:
            assert answer["usage"]["completion_tokens"] == 60
        else:
            assert 1 <= int(headers["retry-after"]) <= 60
    assert ask(server, long)[0] == 200


def post_all_with_key(server: ServerUnderTest, bodies: list[Any]) -> list[tuple[int, Any, dict[str, str]]]:
    return post_all(server, "v1/completions", bodies, Authorization="Bearer secret")


def test_a_salt_keeps_callers_from_seeing_what_others_cached(server: ServerUnderTest) -> None:
    """Times and cached_tokens show that a prompt is cached: only requests of the same salt see it."""
    user = [{"role": "user", "content": "my secret is 7719, " * 8}]
    for path, body in (
        ("v1/completions", {"prompt": "the secret is 7718, " * 8, "max_tokens": 1}),
        ("v1/chat/completions", {"messages": user, "max_tokens": 1}),
    ):

        def cached(path: str = path, **fields: Any) -> int:
            return ask(server, body | fields, path)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]  # noqa: B023

        assert cached(cache_salt="a") == 0 < cached(cache_salt="a")
        assert cached() == 0 == cached(cache_salt="b"), "nothing is shared with other salts"
        assert cached() == cached(cache_salt="a") > 0
    for path, body in (
        ("v1/responses", {"input": "the secret is 7717, " * 8, "max_output_tokens": 1, "store": False}),
        ("v1/messages", {"messages": [{"role": "user", "content": "it is 7716, " * 8}], "max_tokens": 1}),
    ):
        usages = [ask(server, body | {"cache_salt": salt}, path)[1]["usage"] for salt in ("a", "a", "b")]
        counts = [
            usage["input_tokens_details"]["cached_tokens"] if "responses" in path else usage["cache_read_input_tokens"]
            for usage in usages
        ]
        assert counts[0] == 0 < counts[1] and counts[2] == 0


def test_a_priority_is_refused_where_the_operator_does_not_allow_it(server: ServerUnderTest) -> None:
    for path, body in (
        ("v1/completions", {"prompt": "x"}),
        ("v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("v1/responses", {"input": "x"}),
    ):
        status, answer, _ = ask(server, body | {"priority": -1}, path)
        assert status == 400 and answer["error"]["param"] == "priority"
        assert "--scheduling-policy priority" in answer["error"]["message"]


def test_fields_of_vllms_users_work(server: ServerUnderTest) -> None:
    ids = ask(server, {"prompt": "def f(x):\n"}, "tokenize")[1]["tokens"]
    body = {"prompt": "def f(x):\n", "temperature": 0, "max_tokens": 8, "return_token_ids": True}
    (plain,) = ask(server, body)[1]["choices"]
    assert plain["prompt_token_ids"] == ids and len(plain["token_ids"]) == 8
    first, second = plain["token_ids"][:2]
    (stopped,) = ask(server, body | {"stop_token_ids": [second], "include_stop_str_in_output": True})[1]["choices"]
    assert (stopped["token_ids"], stopped["finish_reason"], stopped["stop_reason"]) == ([first, second], "stop", second)
    (other,) = ask(server, body | {"allowed_token_ids": [5, 6], "min_tokens": 8, "priority": 0})[1]["choices"]
    assert set(other["token_ids"]) <= {5, 6} and len(other["token_ids"]) == 8
    (biased,) = ask(server, body | {"logit_bias": {str(first): -100}})[1]["choices"]
    assert biased["token_ids"][0] != first
    (cut,) = ask(server, body | {"truncate_prompt_tokens": 2})[1]["choices"]
    assert cut["prompt_token_ids"] == ids[-2:]
    answer = ask(
        server, body | {"request_id": "mine", "prompt_logprobs": 0, "logprobs": 0, "return_tokens_as_token_ids": True}
    )[1]
    assert answer["id"] == "cmpl-mine"
    (choice,) = answer["choices"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token_id}" for token_id in plain["token_ids"]]
    assert choice["prompt_logprobs"][0] is None and set(choice["prompt_logprobs"][1]) == {str(ids[1])}
    seen = ask(server, body | {"logprobs": 0, "logprob_token_ids": [7]})[1]["choices"][0]["logprobs"]
    assert all(len(place) == 2 for place in seen["top_logprobs"])
    greedy = body | {"temperature": 1.0, "top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "user": "me"}
    assert ask(server, greedy)[1]["choices"][0]["token_ids"] == plain["token_ids"]


@pytest.mark.parametrize("asked", [{"regex": r"<\|im_end\|>x"}, {"choice": ["<|im_end|>x"]}])
def test_text_that_spells_a_special_token_is_an_answer(server: ServerUnderTest, asked: dict[str, Any]) -> None:
    (choice,) = ask(server, {"prompt": "a", "structured_outputs": asked, "max_tokens": 30})[1]["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("<|im_end|>x", "stop")


def test_forced_calls_keep_the_references_of_each_tool(server: ServerUnderTest) -> None:
    def tool(name: str, kind: str) -> dict[str, Any]:
        parameters = {"type": "object", "properties": {"a": {"$ref": "#/definitions/A"}}, "required": ["a"]}
        parameters |= {"additionalProperties": False, "definitions": {"A": {"type": kind}}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [tool("f", "null"), tool("g", "boolean")]}
    named = {"type": "function", "function": {"name": "f"}}
    for choice in ("required", named):
        (answer,) = ask(server, body | {"tool_choice": choice, "max_tokens": 80, "seed": 3}, "v1/chat/completions")[1][
            "choices"
        ]
        assert answer["finish_reason"] == "tool_calls"
        for call in answer["message"]["tool_calls"]:
            (value,) = json.loads(call["function"]["arguments"]).values()
            assert value is None if call["function"]["name"] == "f" else isinstance(value, bool)


def test_a_conversation_goes_through_the_template(server: ServerUnderTest) -> None:
    def prompt_of(**fields: Any) -> str:
        body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]} | fields
        tokens = ask(server, body, "tokenize")[1]["tokens"]
        text: str = ask(server, {"tokens": tokens}, "detokenize")[1]["prompt"]
        body |= {"max_tokens": 1, "return_token_ids": True}
        if "tools" in fields:
            body["tool_choice"] = "auto"
        assert ask(server, body, "v1/chat/completions")[1]["prompt_token_ids"] == tokens
        return text

    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    assert prompt_of() == "user: hi\nassistant: "
    assert prompt_of(tools=[tool]) == "tool look\nuser: hi\nassistant: "
    assert prompt_of(add_generation_prompt=False, chat_template_kwargs={"mood": "well"}) == "user: hi\nwell"
    error = refusal(
        server, {"messages": [{"role": "user", "content": "a"}], "chat_template": "x"}, "v1/chat/completions"
    )
    assert error["param"] == "chat_template" and "--trust-request-chat-template" in error["message"]
    for role in ("user", "nobody"):
        error = refusal(server, {"messages": [{"role": role, "content": 3}]}, "v1/chat/completions")
        assert error["param"].startswith("messages[0]")


def test_the_published_document_says_what_is_taken_and_given(server: ServerUnderTest) -> None:
    document = get(server, "openapi.json")[1]
    schemas = document["components"]["schemas"]
    Draft202012Validator.check_schema(schemas["CompletionRequest"])

    def is_valid(name: str, body: Any) -> bool:
        return Draft202012Validator(schemas[name] | {"components": document["components"]}).is_valid(body)

    for body, _, _ in WRONG:
        said = is_valid("CompletionRequest", body)
        rules = ("min_tokens", "stream_options", "prompt_logprobs", "structured_outputs")
        is_long = isinstance(body.get("prompt"), str) and len(body["prompt"]) > 2000
        assert not said or is_long or any(name in body for name in rules), body
    assert is_valid("CompletionRequest", {"prompt": [3071], "logit_bias": {"3071": 1, "0": 2}, "model": "small"})
    for path, body in (
        (
            "v1/completions",
            {"prompt": "a", "max_tokens": 3, "logprobs": 2, "prompt_logprobs": 1, "return_token_ids": True},
        ),
        ("v1/completions", {"prompt": "a", "max_tokens": 3, "return_token_origins": True, "n": 2}),
        (
            "v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "logprobs": True, "top_logprobs": 2},
        ),
        ("tokenize", {"prompt": "a", "return_token_strs": True}),
        ("detokenize", {"tokens": [3, 4]}),
    ):
        name = document["paths"]["/" + path]["post"]
        asked = name["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        assert is_valid(asked, body)
        status, answer, _ = ask(server, body, path)
        assert status == 200
        told = name["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        Draft202012Validator(schemas[told] | {"components": document["components"]}).validate(answer)
    for path in ("health", "version", "v1/models", "v1/models/small"):
        answer = get(server, path, Authorization="Bearer secret")[1]
        key = "/v1/models/{model}" if path == "v1/models/small" else "/" + path
        told = document["paths"][key]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].split(
            "/"
        )[-1]
        Draft202012Validator(schemas[told] | {"components": document["components"]}).validate(answer)


@pytest.mark.parametrize("most", [0, 1, 9, 10, 11, 99, 100, 319, 3071])
def test_an_expression_for_numbers(most: int) -> None:
    pattern = re.compile(up_to(most))
    assert [number for number in range(12000) if pattern.fullmatch(str(number))] == list(range(most + 1))
    assert not pattern.fullmatch("00") and not pattern.fullmatch("01") and not pattern.fullmatch("")
