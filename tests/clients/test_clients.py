"""Client libraries of other projects, as their users install them, drive `outrider serve`.

Each has a script that runs in an environment of its own (`make setup-clients`: .venv-clients), does the same task, and
reports what it found. It must be what plain HTTP gives for the same requests.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.http_calls import post
from tests.support.server_under_test import ServerUnderTest, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
CLIENTS = Path(os.environ.get("OUTRIDER_CLIENTS", ROOT / ".venv-clients"))
MISSING = f"{CLIENTS} has no {{}}: the clients were NOT tested. Run `make setup-clients`."

TEMPLATE = """{% if tools %}{{ tools|tojson }}
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}{% for call in message.tool_calls or [] %}{{ call.function|tojson }}{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
QUESTION = "Anna has 14 apples and buys 9 more. How many apples does she have?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}, "likes_code": {"type": "boolean"}},
    "required": ["colour", "likes_code"],
    "additionalProperties": False,
}
TOOL = {"name": "paint", "description": "Paints.", "parameters": SCHEMA}
MAX_TOKENS = 60


@dataclass(frozen=True)
class Truth:
    """The answers over plain HTTP."""

    text: str
    num_tokens: int
    arguments: dict[str, Any]
    shaped: dict[str, Any]
    later: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    template = tmp_path_factory.mktemp("clients") / "template.jinja"
    template.write_text(TEMPLATE)
    with serve("--tool-call-parser", "hermes", "--chat-template", str(template)) as started:
        yield started


@pytest.fixture(scope="module")
def truth(server: ServerUnderTest) -> Truth:
    def asked(**fields: Any) -> dict[str, Any]:
        body = {"messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS} | fields
        status, answer, _ = post(server, "v1/chat/completions", body)
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def message(**fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = asked(**fields)["choices"][0]["message"]
        return found

    whole = asked()
    called = message(tools=[{"type": "function", "function": TOOL}], tool_choice="required", parallel_tool_calls=False)
    (call,) = called["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    return Truth(
        text=whole["choices"][0]["message"]["content"],
        num_tokens=whole["usage"]["completion_tokens"],
        arguments=json.loads(call["function"]["arguments"]),
        shaped=json.loads(message(response_format=form)["content"]),
        later=message(messages=[*MESSAGES, called, result])["content"],
    )


def command_of(script: Path) -> list[str]:
    """The command for a script: the clients' own Python, or node with the clients' own packages."""
    if script.suffix == ".mjs":
        program, packages = shutil.which("node"), CLIENTS / "node_modules"
        need("node" if program is None else "node_modules", there=program is not None and packages.is_dir())
        assert program is not None
        return [program, str(script)]
    python = CLIENTS / "bin" / "python"
    need("bin/python", there=python.exists())
    return [str(python), str(script)]


def need(name: str, *, there: bool) -> None:
    """Fails in CI (CI=true) without what is needed, and skips elsewhere."""
    if there:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(MISSING.format(name) + " CI must test them.", pytrace=False)
    pytest.skip(MISSING.format(name))


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of a script: it must not find this user's settings, keys or caches."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "OPENAI_API_KEY": "none", "DO_NOT_TRACK": "1"}


def found_by(script: Path, server: ServerUnderTest, folder: Path) -> dict[str, Any]:
    """Runs a script and returns its report."""
    task = {
        "url": server.url + "v1",
        "model": "zoo/tiny",
        "question": QUESTION,
        "max_tokens": MAX_TOKENS,
        "tool": TOOL,
        "schema": SCHEMA,
    }
    command = command_of(script)
    if script.suffix == ".mjs":  # node looks for packages beside the script
        (folder / "node_modules").symlink_to(CLIENTS / "node_modules")
        command[-1] = str(shutil.copy(script, folder))
    environment = environment_of(folder)
    done = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, timeout=300, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    "script",
    sorted(path for path in SCRIPTS.iterdir() if path.stem.endswith("_chat")),
    ids=lambda path: path.stem.removesuffix("_chat"),
)
def test_a_client_finds_what_plain_http_gives(
    server: ServerUnderTest, truth: Truth, script: Path, tmp_path: Path
) -> None:
    found = found_by(script, server, tmp_path)
    assert found, "the client found nothing"
    for key, value in found.items():
        name = key.split("_over_")[0]  # text_over_responses is a text over /v1/responses
        if name == "text":
            assert value == truth.text
        elif name == "pieces":
            assert "".join(value) == truth.text and len([piece for piece in value if piece]) > 3
        elif name in ("call", "streamed_call"):
            assert value[0] == TOOL["name"] and json.loads(value[1]) == truth.arguments
        elif name == "shaped":
            assert json.loads(value) == truth.shaped
        elif name == "later":
            assert value == truth.later
        elif name == "num_tokens":
            assert value == truth.num_tokens
        elif name == "shaped_by_mode":  # the library's own prompt: another answer, which must be valid
            for texts in value.values():
                for text in texts:
                    Draft202012Validator(SCHEMA).validate(json.loads(text))
        else:
            raise AssertionError(f"{script.name} reports {key}, which is not checked")


def test_every_library_has_a_script() -> None:
    assert {path.stem for path in SCRIPTS.iterdir() if path.stem.endswith("_chat")} == {
        f"{name}_chat"
        for name in ("openai", "langchain", "litellm", "llama_index", "instructor", "pydantic_ai", "vercel")
    }
