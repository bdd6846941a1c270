"""/v1/responses and /v1/messages on a server with a key, parsers of tool calls and of reasoning, and small limits."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.support.http_calls import get, post, post_all
from tests.support.running_server import RunningServer
from tests.support.server_under_test import ServerUnderTest

pytestmark = pytest.mark.slow

TEMPLATE = """{% if tools %}{{ tools|tojson }}
{% endif %}{{ enable_thinking }}{{ reasoning_effort }}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}{{ message.reasoning_content }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
ARGUMENTS = '{"a": 12345678901234567890.5, "a": [1.10, "\\ud83d"]}'
SAYS = f'<think>\nHm.\n</think>\n\nLet me see.\n<tool_call>\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'
FORCED: dict[str, Any] = {"structured_outputs": {"choice": [SAYS]}}
CHAT: list[Any] = [{"role": "user", "content": "hi"}]
LOOK = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
FUNCTION: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
MESSAGE: dict[str, Any] = {"model": "small", "max_tokens": 300, "messages": CHAT, "tools": [LOOK], "extra_body": FORCED}
RESPONSE: dict[str, Any] = {"model": "small", "input": "hi", "tools": [FUNCTION], "extra_body": FORCED}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    template = tmp_path_factory.mktemp("guarded") / "template.jinja"
    template.write_text(TEMPLATE)
    options = {
        "--api-key": "secret",
        "--max-body-bytes": "20000",
        "--max-num-seqs": "2",
        "--max-queued-requests": "0",
        "--tool-call-parser": "hermes",
        "--reasoning-parser": "qwen3",
        "--chat-template": template,
        "--served-model-name": "small",
    }
    with RunningServer("--log-requests", *(part for pair in options.items() for part in pair)) as started:
        yield started


@pytest.fixture(scope="module")
def server(running: RunningServer) -> ServerUnderTest:
    return ServerUnderTest(running.url + "/", running.process, list(running.lines))


@pytest.fixture(scope="module")
def claude(server: ServerUnderTest) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url.rstrip("/"), api_key="secret", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: ServerUnderTest) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "v1", api_key="secret", max_retries=0, timeout=60) as made:
        yield made


def test_thinking_text_and_call_are_blocks(claude: Anthropic, server: ServerUnderTest) -> None:
    whole = claude.messages.create(**MESSAGE)
    thinking, text, call = whole.content
    assert (thinking.thinking, text.text, call.name) == ("Hm.", "Let me see.\n", "look")
    assert whole.stop_reason == "tool_use"
    kinds, pieces = [], {"thinking_delta": "", "text_delta": "", "input_json_delta": ""}
    for event in claude.messages.create(**MESSAGE, stream=True):
        if event.type == "content_block_start":
            kinds.append(event.content_block.type)
        if event.type == "content_block_delta":
            delta = event.delta.model_dump()
            pieces[delta.pop("type")] += next(iter(delta.values()))
    assert kinds == ["thinking", "text", "tool_use"]
    assert list(pieces.values()) == ["Hm.", "Let me see.\n", ARGUMENTS]
    body = MESSAGE | FORCED
    body.pop("extra_body")
    raw = raw_body(server, "/v1/messages", body)
    assert f'"input": {ARGUMENTS}' in raw  # not parsed and written again


def raw_body(server: ServerUnderTest, path: str, body: dict[str, Any]) -> str:
    """The text of an answer, which `json` would change."""
    data = json.dumps(body).encode()
    with socket.create_connection(server.address) as raw:
        raw.sendall(f"POST {path} HTTP/1.0\r\nx-api-key: secret\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        found = b""
        while piece := raw.recv(65536):
            found += piece
    return found.decode()


def test_reasoning_text_and_call_are_items(client: OpenAI) -> None:
    whole = client.responses.create(**RESPONSE)
    reasoning, message, call = whole.output
    assert reasoning.content[0].text == "Hm." and message.content[0].text == "Let me see.\n"
    assert (call.name, call.arguments) == ("look", ARGUMENTS)
    assert 0 < whole.usage.output_tokens_details.reasoning_tokens < whole.usage.output_tokens
    events = list(client.responses.create(**RESPONSE, stream=True))
    told = {
        kind: "".join(event.delta for event in events if event.type == kind)
        for kind in ("response.reasoning_text.delta", "response.output_text.delta")
    }
    assert list(told.values()) == ["Hm.", "Let me see.\n"]
    last = events[-1].response
    assert [item.type for item in last.output] == ["reasoning", "message", "function_call"]
    assert last.output[2].arguments == ARGUMENTS
    # all of it can be sent back, and the template gets the reasoning
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    items: list[Any] = [*CHAT, *[item.model_dump() for item in whole.output], result]
    asked: dict[str, Any] = {"model": "small", "max_output_tokens": 5}
    sent = client.responses.create(**asked, input=items)
    linked = client.responses.create(**asked, input=[result], previous_response_id=whole.id)
    without = client.responses.create(**asked, input=[items[0], *items[2:]])
    assert sent.usage.input_tokens == linked.usage.input_tokens > without.usage.input_tokens


def test_log_probabilities_exclude_parsers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be combined"):
        client.responses.create(model="small", input="hi", include=["message.output_text.logprobs"])


def test_thinking_is_turned_on_and_off(claude: Anthropic) -> None:
    def prompt_tokens(**more: Any) -> int:
        return claude.messages.count_tokens(model="small", messages=CHAT, **more).input_tokens

    plain = prompt_tokens()
    on = prompt_tokens(thinking={"type": "enabled", "budget_tokens": 1024})
    assert on == prompt_tokens(thinking={"type": "adaptive"}) > plain
    assert prompt_tokens(thinking={"type": "disabled"}) > plain
    assert prompt_tokens(output_config={"effort": "high"}) > plain
    quiet = claude.messages.create(**MESSAGE, thinking={"type": "disabled"})
    assert [block.type for block in quiet.content] == ["text", "tool_use"]


def test_a_key_is_needed_in_either_header(server: ServerUnderTest) -> None:
    body = {"max_tokens": 1, "messages": CHAT}
    for headers in ({}, {"x-api-key": "wrong"}, {"Authorization": "Bearer wrong"}, {"x-api-key": ""}):
        status, answer, _ = post(server, "v1/messages", body, **headers)
        assert status == 401 and answer["error"]["type"] == "authentication_error" and answer["type"] == "error"
        status, answer, _ = post(server, "v1/responses", {"input": "a"}, **headers)
        assert status == 401 and answer["error"]["code"] == "invalid_api_key"
        assert get(server, "v1/responses/resp_0", **headers)[0] == 401
    for good in ({"x-api-key": "secret"}, {"Authorization": "Bearer secret"}):
        assert post(server, "v1/messages", body, **good)[0] == 200
        assert post(server, "v1/responses", {"input": "a", "max_output_tokens": 1}, **good)[0] == 200


def test_errors_have_the_form_of_their_endpoint(server: ServerUnderTest, claude: Anthropic) -> None:
    key = {"x-api-key": "secret"}
    long = {"max_tokens": 1, "messages": [{"role": "user", "content": "a" * 20000}]}
    for body, path, status, kind in (
        (long, "v1/messages", 413, "request_too_large"),
        (b"{", "v1/messages", 400, "invalid_request_error"),
        ({"max_tokens": 1, "messages": CHAT, "model": "x"}, "v1/messages", 404, "not_found_error"),
        ({}, "v1/messages/batches", 404, "not_found_error"),
    ):
        found, answer, _ = post(server, path, body, **key)
        assert found == status and answer["type"] == "error" and answer["error"]["type"] == kind, answer
    assert get(server, "v1/messages", **key)[1]["type"] == "error"
    assert post(server, "v1/responses", {"input": "a" * 20000}, **key)[1]["error"]["param"] is None
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="wrong").messages.create(**MESSAGE)


def test_limits_count_for_every_endpoint(server: ServerUnderTest, running: RunningServer) -> None:
    long = {"max_tokens": 200, "messages": CHAT, "ignore_eos": True}
    found = post_all(server, "v1/messages", [long] * 6, **{"x-api-key": "secret"})
    statuses = sorted(status for status, _, _ in found)
    assert statuses[0] == 200 and statuses[-1] == 429 and set(statuses) == {200, 429}
    for status, answer, headers in found:
        if status == 429:
            assert answer["error"]["type"] == "rate_limit_error" and int(headers["retry-after"]) >= 1
    assert running.wait_until_idle()["num_requests_running"] == 0


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_leaves_ends_its_request(
    server: ServerUnderTest, running: RunningServer, path: str, is_streamed: bool
) -> None:
    before = running.wait_until_idle()
    limit = "max_tokens" if path == "/v1/messages" else "max_output_tokens"
    body: dict[str, Any] = {limit: 1500, "ignore_eos": True, "stream": is_streamed}
    body |= {"messages": CHAT} if path == "/v1/messages" else {"input": "hi"}
    data = json.dumps(body).encode()
    with socket.create_connection(server.address) as raw:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: secret\r\nContent-Length: {len(data)}\r\n\r\n"
        raw.sendall(head.encode() + data)
        running.wait_for(lambda counts: counts["num_requests_running"] > 0)
    after = running.wait_until_idle()
    assert after["request_success_total:abort"] == before["request_success_total:abort"] + 1


def test_each_request_is_one_line_of_the_log(client: OpenAI, claude: Anthropic, running: RunningServer) -> None:
    response = client.responses.create(model="small", input="hi", max_output_tokens=2)
    message = claude.messages.create(model="small", messages=CHAT, max_tokens=2)
    for found, path in ((response.id, "/v1/responses"), (message.id, "/v1/messages")):
        end = time.monotonic() + 10
        while not (lines := [line for line in running.lines if found in line]):
            assert time.monotonic() < end, f"{found} is not in the log"
            time.sleep(0.05)
        (line,) = lines
        assert f"endpoint={path} status=200" in line and "output_tokens=2" in line


def test_an_unknown_path_names_one_that_exists(server: ServerUnderTest) -> None:
    for path, hint in (
        ("chat/completions", "Did you mean /v1/chat/completions?"),
        ("v1/v1/messages", "Did you mean /v1/messages?"),
        ("v1/response", "Did you mean /v1/responses?"),
        ("api/generate", "Use /v1/chat/completions"),
        ("v2/embed", "Use /v1/embeddings"),
        ("v1/embeddings", "outrider serve MODEL --runner pooling"),
        *((path, "--runner pooling") for path in ("score", "v1/score", "rerank", "v2/rerank", "classify", "pooling")),
        ("v1/responses/resp_0/cancel", "GET /v1/responses/ID"),
        ("v1/complete", "Use /v1/completions"),
    ):
        status, answer, _ = post(server, path, {}, **{"x-api-key": "secret"})
        assert status == 404 and hint in answer["error"]["message"], answer


def test_a_stream_that_breaks_off_says_so() -> None:
    """A dead engine ends every request: in a stream by the last event, in the form of the endpoint."""
    with RunningServer() as dying:
        free = OpenAI(base_url=dying.url + "/v1", api_key="none", max_retries=0, timeout=60)
        claude = Anthropic(base_url=dying.url, api_key="none", max_retries=0, timeout=60)
        with free, claude:
            long: Any = {"ignore_eos": True}
            responses = free.responses.create(model="zoo/tiny", input="hi", stream=True, extra_body=long)
            messages = claude.messages.create(
                model="zoo/tiny", max_tokens=1900, messages=CHAT, stream=True, extra_body=long
            )
            begun = next(event for event in responses if event.type == "response.output_text.delta")
            next(event for event in messages if event.type == "content_block_delta")
            dying.engine.kill()
            *_, last = responses
            assert last.type == "response.failed" and last.response.status == "failed"
            assert "output is lost" in last.response.error.message
            assert last.response.output[0].content[0].text.startswith(begun.delta)
            with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
                list(messages)
            with pytest.raises(anthropic.APIStatusError, match="overloaded_error") as refused:
                claude.messages.create(model="zoo/tiny", max_tokens=1, messages=CHAT)
            assert refused.value.status_code == 503
