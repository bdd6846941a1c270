"""A wrong path, option or missing package is one line with the cause and the remedy, from every command."""

import sys
from pathlib import Path

import pytest

from outrider import cli
from tests.structure.test_cli_options import COMMANDS

ROOT = Path(__file__).parents[2]
PROMPTS = ["--prompts", str(ROOT / "zoo" / "prompts.jsonl")]
QUESTIONS = ["--questions", str(ROOT / "zoo" / "questions.jsonl")]
NGRAM = ["--speculative-config", '{"method": "ngram"}']
TLS = ROOT / "tests" / "server" / "tls"

WRONG: dict[str, list[tuple[list[str], str]]] = {
    "generate": [
        (["/nowhere", "-p", "a"], "'/nowhere' is not a directory"),
        (["/nowhere", "--compare", "-p", "a"], "--compare needs --speculative-config"),
        (["-p", "a", "--speculative-config", "{"], "is not valid JSON"),
        (["-p", "a", "--temperature", "-1"], "temperature=-1"),
    ],
    "pull": [(["/nowhere"], "'/nowhere'")],
    "serve": [
        (["/nowhere"], "'/nowhere' is not a directory"),
        (["--chat-template", "/nowhere"], "/nowhere: No such file or directory. Give a path"),
        (["--ssl-certfile", "/nowhere"], "TLS cannot use ssl_certfile='/nowhere': [Errno 2] No such file"),
        (["--ssl-certfile", str(ROOT / "LICENSE")], "LICENSE': "),
        (["--port", "99999999"], "port=99999999 is not a port number"),
        (["--log-level", "loud"], "'loud' is not a log level"),
    ],
    "chat": [
        (["/nowhere"], "'/nowhere' is not a directory"),
        (["--url", "nowhere"], "--url 'nowhere' is not an address. Example: "),
        (["--url", "http://127.0.0.1:1"], "cannot be reached: "),
        (["--url", "http://127.0.0.1:1", *NGRAM], "--speculative-config has no effect with --url"),
        (["--api-key", "a"], "--api-key has no effect without --url"),
    ],
    "verify": [
        (["/nowhere"], "'/nowhere' is not a directory"),
        (["--output-json", "/nowhere/verdict.json"], "the folder /nowhere does not exist"),
    ],
    "info": [(["/nowhere"], "'/nowhere' is not a directory"), (["--device", "abacus"], "device='abacus'")],
    "quantize": [
        (["/nowhere", "-o", "/tmp/none"], "'/nowhere' is not a directory"),
        (["/nowhere", "-o", "/tmp/none", "--format", "int3"], "int3"),
    ],
    "demo": [],
    "bench latency": [(["/nowhere"], "'/nowhere' is not a directory")],
    "bench throughput": [(["/nowhere"], "'/nowhere' is not a directory")],
    "bench host": [
        (["/nowhere"], "'/nowhere' is not a directory"),
        (["--output-json", "/no/a.json"], "the folder /no does not exist"),
    ],
    "bench serve": [(["--base-url", "http://127.0.0.1:1"], "cannot be reached: ")],
    "bench compare": [(["/nowhere", "/nowhere"], "/nowhere cannot be read as a result")],
    "gate record": [
        (["/nowhere", *PROMPTS, "--baseline", "/tmp/none.toml", *NGRAM], "'/nowhere' is not a directory"),
        (["--prompts", "/nowhere", "--baseline", "/tmp/none.toml"], "/nowhere is not a file. Known forms: "),
        ([*PROMPTS, "--baseline", "/tmp/none.toml", "--endpoint", "http://127.0.0.1:1"], "needs MODEL"),
        ([*PROMPTS, "--baseline", "/tmp/none.toml", "--speculative-config", "none"], "nothing to gate"),
    ],
    "gate check": [(["--baseline", "/nowhere"], "/nowhere is not a file. Make it with `outrider gate record`")],
    "gate compare": [
        (["/nowhere", *PROMPTS], "compare needs --speculative-config"),
        (["--prompts", "/nowhere"], "/nowhere is not a file"),
    ],
    "gate accuracy": [
        (["/nowhere", *QUESTIONS, *NGRAM, "--threshold", "0.5"], "'/nowhere' is not a directory"),
        (["/nowhere", *QUESTIONS, "--threshold", "0.5"], "accuracy needs --speculative-config"),
        (["--questions", "/nowhere", "--threshold", "0.5"], "/nowhere is not a file"),
    ],
    "gate lanes": [(["--file", "/nowhere"], "--file /nowhere is not a file")],
}  # fmt: skip
"""Command to wrong arguments and words of the answer. `demo` takes none."""

USAGE: list[tuple[str, list[str], list[str]]] = [
    ("serve", ["--prot", "80"], ["--prot", "--port"]),
    ("serve", ["--port", "x"], ["--port", "given: 'x'"]),
    ("bench latency", ["--batch-size=0"], ["--batch-size", "given: '0'"]),
    ("bench throughput", ["--dataset-path", "/nowhere"], ["'/nowhere'"]),
    ("generate", ["a", "b c"], ["b c"]),
    ("generate", ["--prompt"], ["--prompt"]),
    ("gate record", [], ["--prompts"]),
    ("gate record", ["--seed"], ["--seed"]),
    ("pull", [], ["models"]),
    *((command, ["--nowhere"], ["--nowhere"]) for command in COMMANDS),
]
"""Command to a wrong command line and words of the answer."""

CASES = [(command, arguments, words) for command, cases in WRONG.items() for arguments, words in cases]


def said(command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """The answer of a command that must exit with code 2: its only line."""
    monkeypatch.setattr(sys, "argv", ["outrider", *command.split(), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    lines = [line for line in (shown.out + shown.err).splitlines() if line and not line.startswith("Host, µs")]
    return "\n".join(lines)


def test_every_command_is_tried() -> None:
    assert WRONG.keys() == COMMANDS.keys()


@pytest.mark.parametrize(("command", "arguments", "words"), CASES, ids=lambda value: str(value)[:60])
def test_a_wrong_input_is_one_line(
    command: str, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = said(command, arguments, monkeypatch, capsys)
    assert words in text and text.startswith("outrider"), text
    assert "\n" not in text.strip(), text


@pytest.mark.parametrize(("command", "arguments", "words"), USAGE, ids=lambda value: str(value)[:40])
def test_a_wrong_command_line_is_one_line_with_the_remedy(
    command: str, arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    text = said(command, arguments, monkeypatch, capsys)
    assert all(word in text for word in words) and text.startswith("outrider: "), text
    assert text.endswith(f" `outrider {command} --help` lists what it takes."), text
    assert "\n" not in text, text


@pytest.mark.parametrize(
    ("command", "words"),
    [("frobnicate", "'frobnicate'. `outrider --help`"), ("bench lateny", "'latency'? `outrider bench --help`")],
)
def test_an_unknown_command_is_one_line(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = said(command, [], monkeypatch, capsys)
    assert words in text and "\n" not in text, text


def test_a_wrong_value_in_a_file_of_options_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "options.yaml").write_text("port: x\n")
    text = said("serve", ["--config", str(tmp_path / "options.yaml")], monkeypatch, capsys)
    assert "--port" in text and "given in --config: 'x'" in text and "\n" not in text, text


@pytest.mark.parametrize("command", ["", "bench", "gate"])
def test_a_group_without_a_command_lists_them(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert "Commands" in said(command, [], monkeypatch, capsys)


@pytest.mark.parametrize(
    ("missing", "command", "arguments", "words"),
    [
        ("uvicorn", "serve", [], "pip install 'outrider[server]'"),
        ("aiohttp", "bench serve", ["--base-url", "http://127.0.0.1:1"], "pip install 'outrider[bench]'"),
        ("matplotlib.axes", "bench serve", ["--plot", "a.png"], "pip install 'outrider[plot]'"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(
    missing: str, command: str, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("client", "drive", "plot"):
        monkeypatch.delitem(sys.modules, f"outrider.bench.serve.{name}", raising=False)
    text = said(command, arguments, monkeypatch, capsys)
    assert words in text and "\n" not in text.strip(), text
