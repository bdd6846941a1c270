"""Every code block of README and docs is run or checked by a test, and every command that is named has its options.

Commands run in tests/server/test_documented_commands.py. Here the other blocks are: programs of docs, options in YAML,
a line of the log; and each block is looked at, so that a new kind of block needs a test of its own.
"""

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from outrider.cli.command_group import COMMANDS, load_command
from outrider.config_file import read_config
from tests.server.test_documented_commands import commands_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)

ELSEWHERE = {
    "from outrider import LLM, SamplingParams\n\nllm = LLM(": "tests/documents/test_readme.py, and here for docs",
    'from outrider import LLM\n\nllm = LLM("zoo/tiny", runner="pooling")': "tests/documents/test_code_blocks.py",
    "batch = self.assembler.build(": "tests/structure/test_readme_step.py",
    "from openai import OpenAI": "tests/server/test_readme.py",
    '"""Always says 7."""': "tests/speculation/test_conformance.py",
    "1 + rate(outrider:": "tests/server/test_metrics.py",
}
"""Beginning of a block that has no commands, and where it is tested."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of each block."""
    return BLOCK.findall(page.read_text())


def is_tested(language: str, content: str) -> bool:
    """True if a test runs or checks the block."""
    return (
        bool(commands_of(f"```{language}\n{content}```\n"))
        or language == "yaml"
        or re.match(r"\d{4}-\d\d-\d\d .* INFO outrider\.", content) is not None
        or any(content.startswith(beginning) for beginning in ELSEWHERE)
    )


def test_every_block_is_run_or_checked() -> None:
    found = [(page.name, language, content) for page in PAGES for language, content in blocks(page)]
    assert len(found) > 20
    assert [block for block in found if not is_tested(*block[1:])] == []
    fences = sum(len(re.findall(r"^ *```", page.read_text(), flags=re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(found), "a fence that is not found as a block"
    assert not is_tested("", "rm -rf something\n"), "a block that nobody knows is found"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/.]+", " ".join(ELSEWHERE.values())))))
def test_the_tests_elsewhere_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if any(kind == "python" for kind, _ in blocks(page))])
def test_programs_of_docs_run(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    for language, content in blocks(page):
        if language == "python":
            exec(content, {})
            assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_yaml_are_options_of_serve(page: Path, tmp_path: Path) -> None:
    known = {parameter.name for parameter in load_command("serve").params}
    for language, content in blocks(page):
        if language == "yaml":
            (tmp_path / "options.yaml").write_text(content)
            assert read_config(tmp_path / "options.yaml", known=known)


def test_the_line_of_the_log_has_the_form_of_the_log() -> None:
    (line,) = [content for _, content in blocks(ROOT / "docs" / "serving.md") if "INFO" in content]
    source = (ROOT / "src/outrider/server/request_log.py").read_text()
    (form,) = re.findall(r'"(id=%s %s .*)",', source)
    names = re.findall(r"(\w+)=", line)
    assert names == ["id", "endpoint", "status", *re.findall(r"(\w+)=%", form)[1:]]
    assert logging.getLogger("outrider.server.request_log").name in line


def spans(page: Path) -> list[str]:
    """Commands of outrider that a sentence names, and single options."""
    text = BLOCK.sub("", page.read_text())
    return [" ".join(span.split()) for span in re.findall(r"`((?:outrider |--)[^`]+)`", text)]


def every_command() -> dict[str, set[str]]:
    """Names of options by the words of their command."""
    found: dict[str, set[str]] = {}
    for name in COMMANDS:
        command: Any = load_command(name)
        for word, inner in getattr(command, "commands", {"": command}).items():
            options = {option for parameter in inner.params for option in (*parameter.opts, *parameter.secondary_opts)}
            found[f"{name} {word}".strip()] = options | {"--help"}
    return found


def wrong_names(span: str, known: dict[str, set[str]]) -> list[str]:
    """Options in a span that its command does not have; all of them if there is no such command."""
    words = shlex.split(span.replace("…", ""))
    if words[0] != "outrider":
        anywhere = set().union(*known.values()) | {"--version"}
        return [word for word in words if word.startswith("--") and word.partition("=")[0] not in anywhere]
    commands = [name for name in known if f"{span} ".startswith(f"outrider {name} ") or name.split()[0] == words[1]]
    own = [name for name in commands if f"{span} ".startswith(f"outrider {name} ")]
    options = [word.strip("[]") for word in words if word.strip("[]").startswith("--")]
    allowed = set().union(*(known[name] for name in own or commands)) | {"--version"}
    if not commands and not words[1].startswith("--"):
        return [span]
    return [option for option in options if option.partition("=")[0] not in allowed]


NOT_OURS = {
    "--enable-metrics": "SGLang's",
    "--engine vllm": "of benchmarks/mixed_traffic.py",
    "--generation-config vllm": "vLLM's",
}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "from-vllm.md"], ids=lambda page: page.name)
def test_commands_and_options_that_a_sentence_names_exist(page: Path) -> None:
    known = every_command()
    assert [span for span in spans(page) if span not in NOT_OURS and wrong_names(span, known)] == []


def test_a_wrong_name_is_found() -> None:
    known = every_command()
    assert wrong_names("outrider gate accuracy --question FILE", known) == ["--question"]
    assert wrong_names("outrider serv", known) == ["outrider serv"]
    assert wrong_names("--api-keys KEY", known) == ["--api-keys"]
    assert wrong_names("outrider serve org/name --port 80", known) == []
