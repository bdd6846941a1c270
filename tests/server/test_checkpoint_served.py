"""A server of a checkpoint with recommended sampling parameters, and with a template that loops over parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_calls import post
from tests.support.running_server import ROOT, RunningServer
from tests.support.server_under_test import ServerUnderTest

TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
)
HOT = {"temperature": 1.5, "top_k": 1, "max_new_tokens": 7}
pytestmark = pytest.mark.slow


def checkpoint(directory: Path) -> Path:
    """The zoo's target with other defaults and another template."""
    for file in (ROOT / "zoo" / "tiny").iterdir():
        if file.name not in ("generation_config.json", "chat_template.jinja"):
            (directory / file.name).symlink_to(file)
    (directory / "generation_config.json").write_text(json.dumps(HOT | {"eos_token_id": [3071, 3069]}))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    with RunningServer(model=checkpoint(tmp_path_factory.mktemp("checkpoint"))) as running:
        yield ServerUnderTest(running.url + "/", running.process, list(running.lines))


def choice(server: ServerUnderTest, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, answer, _ = post(server, path, body | {"return_token_ids": True})
    assert status == 200, answer
    found: dict[str, Any] = answer["choices"][0]
    return found


def test_recommended_parameters_apply_where_a_request_says_nothing(server: ServerUnderTest) -> None:
    assert any(
        "sampling defaults" in line and "temperature 1.5, top_k 1, max_tokens 7" in line for line in server.start_up
    )
    greedy = choice(server, "v1/completions", {"prompt": "def f(", "temperature": 0, "max_tokens": 9})
    for seed in (1, 2):
        silent = choice(server, "v1/completions", {"prompt": "def f(", "seed": seed, "max_tokens": 9})
        assert silent["token_ids"] == greedy["token_ids"]
    loud = choice(server, "v1/completions", {"prompt": "def f(", "seed": 1, "max_tokens": 9, "top_k": 0})
    assert loud["token_ids"] != greedy["token_ids"], "a field of the request goes before"
    chat = choice(server, "v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True})
    assert len(chat["token_ids"]) == 7 and chat["finish_reason"] == "length"


@pytest.mark.parametrize("content", ["secret question", [{"type": "text", "text": "secret question"}]])
def test_the_question_is_in_the_prompt(server: ServerUnderTest, content: Any) -> None:
    tokens = post(server, "tokenize", {"messages": [{"role": "user", "content": content}]})[1]["tokens"]
    assert "secret question" in post(server, "detokenize", {"tokens": tokens})[1]["prompt"]


def test_a_message_that_would_be_lost_is_refused(server: ServerUnderTest) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    status, answer, _ = post(server, "v1/chat/completions", {"messages": messages})
    assert status == 400 and "messages[0] does not reach the prompt" in answer["error"]["message"]


def test_recommended_parameters_can_be_ignored(tmp_path: Path) -> None:
    options = ("--generation-config", "none", "--chat-template-content-format", "string")
    with RunningServer(*options, model=checkpoint(tmp_path)) as running:
        assert any("none: generation_config is 'none'" in line for line in running.lines)
        server = ServerUnderTest(running.url + "/", running.process, list(running.lines))
        found = [
            choice(server, "v1/completions", {"prompt": "def f(", "seed": seed, "max_tokens": 9})["token_ids"]
            for seed in (1, 2)
        ]
        assert found[0] != found[1]
        status, answer, _ = post(server, "v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
        assert status == 400 and "chat_template_content_format='string'" in answer["error"]["message"]
