"""Schemathesis over our own OpenAPI document, against a running server: bodies that the document allows are answered,
bodies that it forbids are refused, and every answer is one that the document describes.

What a schema cannot say are the document's rules (`openapi.RULES`): bodies are mended until they keep them.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.pooling_models import write_embedder
from tests.support.running_server import RunningServer
from tests.support.server_under_test import ServerUnderTest

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
COMPLETIONS, CHAT, TOKENIZE = "/v1/completions", "/v1/chat/completions", "/tokenize"
RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
WITH_BODY = [COMPLETIONS, CHAT, RESPONSES, MESSAGES, COUNT, TOKENIZE, "/detokenize"]
OFTEN = [
    pytest.param(path, marks=[pytest.mark.slow] if path in (RESPONSES, MESSAGES, COUNT) else []) for path in WITH_BODY
]
"""The endpoints that stand for a chat are left to `make test-all`."""
WITHOUT_BODY = ["/v1/models", "/health", "/version", "/metrics"]
POOLING = ["/v1/embeddings", "/score", "/rerank", "/pooling", "/tokenize"]
"""Endpoints of an embedder; /v1/score and the others of their kind have the same bodies."""
ONE_MODEL = "/v1/models/{model}"
ONE_RESPONSE = "/v1/responses/{response_id}"

JUDGED = {
    "structured_outputs": ("structured_outputs",),
    "response_format": ("structured_outputs", "response_format"),
    "allowed_token_ids": ("allowed_token_ids",),
    "bad_words": ("bad_words",),
    "chat_template_kwargs": ("template",),
    "documents": ("template", "documents"),
    "messages": ("template", "messages", "prompt", "tool call arguments"),
    "tools": ("tool", "structured_outputs"),
    "prompt": ("prompt",),
    "input": ("template", "input", "prompt", "arguments"),
    "instructions": ("template",),
    "text": ("structured_outputs", "text"),
    "system": ("template", "prompt"),
    "output_config": ("structured_outputs", "output_config"),
    "instruction": ("instruction",),
    "truncate_prompt_tokens": ("truncate_prompt_tokens",),
    **dict.fromkeys(("query", "text_1", "text_2", "data_1", "data_2", "queries", "documents", "items"), ("prompt",)),
    "returned_token_ids": ("returned_token_ids",),
    "step_tag_id": ("step_tag_id",),
}
"""Fields whose values a schema cannot judge (is it a grammar? does the template take it?), and how a refusal calls
them."""


@pytest.fixture(scope="module")
def schema(server: ServerUnderTest) -> Any:
    return schemathesis.openapi.from_url(server.url + "openapi.json")


def mended(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body with the rules kept, and small enough for a laptop."""
    body = dict(body)
    if path in POOLING and path != TOKENIZE:
        return mended_texts(path, body)
    if path == TOKENIZE:
        if body.get("messages") is not None:
            body.pop("prompt", None)
        elif body.get("prompt") is None:
            body["prompt"] = "x"
        if body.get("add_generation_prompt"):
            body.pop("continue_final_message", None)
        return body
    if path in (RESPONSES, MESSAGES, COUNT):
        return mended_conversation(path, body)
    if path not in (COMPLETIONS, CHAT):
        return body
    body["max_tokens"] = 2
    body.pop("max_completion_tokens", None)
    body.pop("chat_template", None)
    for name, most in (("n", 2), ("min_tokens", 2)):
        if body.get(name) is not None:
            body[name] = min(body[name], most)
    if isinstance(body.get("prompt"), list):
        body["prompt"] = body["prompt"][:8] if not isinstance(body["prompt"][0], (int, float)) else body["prompt"][:99]
    if not body.get("stream"):
        body.pop("stream_options", None)
    else:
        body.pop("prompt_logprobs", None)
        if path == COMPLETIONS:
            body.pop("echo", None)
    if body.get("echo"):
        body.pop("prompt_logprobs", None)
    if not body.get("logprobs") and path == CHAT:
        body.pop("top_logprobs", None)
    if not body.get("tools"):
        body.pop("tool_choice", None)
    elif body.get("tool_choice") in (None, "auto"):
        body["tool_choice"] = "none"
    elif isinstance(body["tool_choice"], dict):
        body["tool_choice"]["function"]["name"] = body["tools"][0]["function"]["name"]
    if body.get("add_generation_prompt"):
        body.pop("continue_final_message", None)
    forms = [name for name in ("structured_outputs", "response_format") if body.get(name) is not None]
    if body.get("tools") and body["tool_choice"] != "none":
        forms.append("tools")
    for name in forms[:-1]:
        body.pop(name)
    if forms:
        for name in ("ignore_eos", "min_tokens", "bad_words", "allowed_token_ids"):
            body.pop(name, None)
    return body


def mended_conversation(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Likewise, for the endpoints that stand for a chat."""
    if path != COUNT:
        body["max_output_tokens" if path == RESPONSES else "max_tokens"] = 2
        if body.get("min_tokens") is not None:
            body["min_tokens"] = min(body["min_tokens"], 2)
    body.pop("previous_response_id", None)
    if isinstance(body.get("input"), list):
        body["input"] = [item for item in body["input"] if item.get("type", "message") != "item_reference"] or "x"
    if not body.get("stream"):
        body.pop("stream_options", None)
    if "message.output_text.logprobs" not in (body.get("include") or []):
        body.pop("top_logprobs", None)
    for name in ("thinking", "bad_words"):
        body.pop(name, None)
    for name in ("reasoning", "output_config"):
        if body.get(name):
            body[name] = {key: value for key, value in body[name].items() if key != "effort"}
    choice = body.get("tool_choice")
    name = choice.get("name") if isinstance(choice, dict) else None
    if not body.get("tools"):
        body.pop("tool_choice", None)
    elif name is not None:
        body["tool_choice"] = choice | {"name": body["tools"][0]["name"]}
    elif choice != "required" and (choice or {"type": "auto"}) != {"type": "any"}:
        body["tool_choice"] = "none" if path == RESPONSES else {"type": "none"}
    is_forced = bool(body.get("tools")) and body["tool_choice"] not in ("none", {"type": "none"})
    if is_forced:
        body.pop("include", None)
        body.pop("top_logprobs", None)
    forms = [name for name in ("structured_outputs", "text", "output_config") if body.get(name) is not None]
    forms += ["tools"] if is_forced else []
    for name in forms[:-1]:
        body.pop(name)
    if forms:
        for name in ("ignore_eos", "min_tokens", "bad_words", "allowed_token_ids"):
            body.pop(name, None)
    return body


def mended_texts(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Likewise, for the endpoints of a pooling model."""
    if body.get("normalize") is not None:
        body.pop("use_activation", None)
    if path in ("/v1/embeddings", "/pooling"):
        if body.get("input") is None and body.get("messages") is None:
            body["input"] = "x"
        if body.get("input") is not None:
            for name in ("messages", "add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
                body.pop(name, None)
        if body.get("add_generation_prompt"):
            body.pop("continue_final_message", None)
        body.pop("chat_template", None)
    if path == "/score":
        forms = [("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"), ("queries", "items")]
        names = next((names for names in forms if all(body.get(name) for name in names)), forms[0])
        for name in {name for form in forms for name in form} - {*names}:
            body.pop(name, None)
        for name in names:
            body[name] = body.get(name) or "x"
        if isinstance(body[names[0]], list):
            body[names[0]] = body[names[0]][0]
    return body


def judged(body: dict[str, Any]) -> list[str]:
    """Names that a refusal may give to errors that only the server can detect."""
    return [name for key, names in JUDGED.items() if body.get(key) is not None for name in names]


SECONDS = 400
"""Time for an answer: one without max_tokens may be as long as the context, beside other work on the machine."""


def fuzz(schema: Any, path: str, mode: GenerationMode, count: int) -> dict[int, int]:
    """Send `count` bodies; how often each status came. Every answer is checked against the document."""
    statuses: dict[int, int] = {}
    is_positive = mode is GenerationMode.POSITIVE
    form = schema.raw_schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    allowed = Draft202012Validator(form | {"components": schema.raw_schema["components"]})

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path]["POST"].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        if is_positive:
            case.body = mended(path, case.body)
        answer = case.call(timeout=SECONDS)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        case.validate_response(answer, checks=CHECKS)
        if not is_positive:
            # a few bodies that are made to be wrong are right by the document
            is_refused = 400 <= answer.status_code < 500
            assert is_refused or allowed.is_valid(case.body), (answer.text[:500], case.body)
        elif answer.status_code != 200:
            assert answer.status_code == 400, (answer.text[:500], case.body)
            said = json.loads(answer.text)["error"]
            names = judged(case.body)
            text = f"{said.get('param')} {said['message']}"
            assert any(name in text for name in names), (text[:500], case.body)

    send()
    return statuses


COUNTS = [12, pytest.param(50, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("path", OFTEN)
def test_bodies_that_the_document_allows_are_answered(schema: Any, path: str, count: int) -> None:
    statuses = fuzz(schema, path, GenerationMode.POSITIVE, count)
    assert statuses.keys() <= {200, 400}
    assert statuses[200] > sum(statuses.values()) // 2, statuses


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("path", OFTEN)
def test_bodies_that_the_document_forbids_are_refused(schema: Any, path: str, count: int) -> None:
    statuses = fuzz(schema, path, GenerationMode.NEGATIVE, count)
    assert sum(statuses.values()) >= 10 and statuses.keys() <= {400, 404, 413, 415}, statuses


@pytest.fixture(scope="module")
def pooling_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("embedder")
    write_embedder(folder)
    with RunningServer(model=folder) as started:
        yield schemathesis.openapi.from_url(started.url + "/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize("path", POOLING)
def test_bodies_for_a_pooling_model(pooling_schema: Any, path: str) -> None:
    statuses = fuzz(pooling_schema, path, GenerationMode.POSITIVE, 50)
    assert statuses.keys() <= {200, 400} and statuses[200] > sum(statuses.values()) // 2, statuses
    statuses = fuzz(pooling_schema, path, GenerationMode.NEGATIVE, 50)
    assert sum(statuses.values()) >= 10 and statuses.keys() <= {400, 404, 413, 415}, statuses


@pytest.mark.slow
def test_every_endpoint_of_a_pooling_model_is_in_that_test(pooling_schema: Any) -> None:
    paths = pooling_schema.raw_schema["paths"]
    twins = {"/v1/score", "/v1/rerank", "/v2/rerank", "/detokenize"}
    assert {path for path, methods in paths.items() if "post" in methods} == {*POOLING, *twins}


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", WITH_BODY)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_many_bodies(schema: Any, path: str, mode: GenerationMode) -> None:
    count = 200 if path in (RESPONSES, MESSAGES, COUNT) else 1000
    print(path, mode.value, fuzz(schema, path, mode, count))


@pytest.mark.parametrize("path", WITHOUT_BODY)
def test_what_takes_no_body_answers_as_the_document_says(schema: Any, path: str) -> None:
    case = schema[path]["GET"].Case()
    case.validate_response(case.call(), checks=CHECKS)


@pytest.mark.parametrize(("model", "status"), [("zoo/tiny", 200), ("nothing", 404)])
def test_one_model_answers_as_the_document_says(schema: Any, model: str, status: int) -> None:
    case = schema[ONE_MODEL]["GET"].Case(path_parameters={"model": model})
    answer = case.call()
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_one_response_answers_as_the_document_says(schema: Any, server: ServerUnderTest, method: str) -> None:
    made = json.loads(schema[RESPONSES]["POST"].Case(body={"input": "x", "max_output_tokens": 2}).call().text)
    for response_id, status in ((made["id"], 200), ("resp_0", 404)):
        case = schema[ONE_RESPONSE][method].Case(path_parameters={"response_id": response_id})
        answer = case.call()
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code == status


def test_every_endpoint_is_in_one_of_these_tests(server: ServerUnderTest) -> None:
    with urlopen(server.url + "openapi.json") as answer:
        assert {*json.load(answer)["paths"]} == {*WITH_BODY, *WITHOUT_BODY, ONE_MODEL, ONE_RESPONSE}
