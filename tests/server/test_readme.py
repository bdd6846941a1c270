"""The README's serving section can be followed word for word; only the port is another."""

import contextlib
import io
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_calls import events, get, post
from tests.support.server_under_test import ServerUnderTest, serve

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (section,) = re.findall(r"^## Serving\n(.*?)^## ", text, flags=re.DOTALL | re.MULTILINE)
    return [block for _, block in re.findall(r"```(\w*)\n(.*?)```", section, flags=re.DOTALL)]


@pytest.fixture(scope="module")
def server(blocks: list[str], server: ServerUnderTest) -> Iterator[ServerUnderTest]:
    (command,) = re.findall(r"^outrider serve *(.*?) *#", blocks[0], flags=re.MULTILINE)
    if not command:  # the server of this folder has no options either
        yield server
        return
    with serve(*shlex.split(command)) as started:
        yield started


def test_the_commands_answer(blocks: list[str], server: ServerUnderTest) -> None:
    commands = [shlex.split(line) for line in blocks[1].replace("\\\n", "").splitlines()]
    assert [command[0] for command in commands] == ["curl"] * 3
    for _, address, *options in commands:
        path = address.removeprefix(ADDRESS + "/")
        if not options:
            assert get(server, path)[0] == 200
            continue
        assert options[:2] == ["-H", "Content-Type: application/json"] and options[2] == "-d"
        status, answer, _ = post(server, path, options[3].encode())
        assert status == 200, answer
        assert events(answer) if json.loads(options[3]).get("stream") else answer["choices"][0]["text"]


def test_the_code_prints_a_text_and_what_speculation_did(blocks: list[str], server: ServerUnderTest) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(blocks[2].replace(ADDRESS + "/", server.url), {})
    assert "num_accepted_tokens_per_pos" in out.getvalue()


def test_the_client_of_the_examples_talks_to_it(server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "examples" / "server_client.py"
    monkeypatch.setattr("sys.argv", [str(example), server.url + "v1"])
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(example), run_name="__main__")
    assert re.search(r'add\(\{"a": ?\d+, ?"b": ?\d+\}\)\nacceptance length [1-4]\.\d\d\n', out.getvalue()), (
        out.getvalue()
    )
