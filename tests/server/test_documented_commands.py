"""Every command in a code block of README and docs runs as written, in a folder with the zoo, `outrider` on the path,
and with the server of this folder where a block needs one. Only amounts are smaller.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_under_test import ServerUnderTest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"

NOT_RUN = {
    r"make ": "the targets of the Makefile are run by developers and CI",
    r"source ": "opens an environment; its commands are on the path here",
    r".*…": "an outline, not a command",
    r".*\b(DIRECTORY|HEAD|NAME|FILE)\b": "has a name to fill in",
    r"(\.venv/bin/)?outrider serve\b": "test_readme.py starts it",
    r"(\.venv/bin/)?outrider pull\b": "needs a hub; tests/loading/test_hub_commands.py has one of its own",
    r".*\borg/": "likewise",
    r"(python3 -m venv|/tmp/release|cd /tmp/release|pip install|docker|cd |git |gh )": "installs or publishes",
}
"""Pattern of a command that is not run, and why."""

SMALLER = {
    "gate record": ["--max-tokens", "4"],
    "gate check": ["--max-tokens", "4"],
    "gate compare": ["--max-tokens", "4"],
    "bench serve": ["--num-prompts", "3", "--input-len", "8", "--output-len", "4"],
    "bench latency": ["--num-iters", "1", "--output-len", "8"],
    "bench throughput": ["--num-prompts", "3", "--output-len", "8"],
    "bench host": ["--num-iters", "1", "--batch-size", "1"],
    "chat": ["--max-tokens", "8"],
}
"""Command to options that make it quick; they follow the documented ones and win over them."""


def commands_of(text: str) -> list[str]:
    """Lines of code blocks without a language or of a shell, continued lines joined, comments and outputs left out."""
    found = []
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE):
        if language in ("", "bash", "sh", "shell", "console"):
            lines = [line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
            found += [
                line
                for line in lines
                if re.match(r"(\.venv/bin/)?(outrider|python3?|curl|make|pip|source|docker)\b", line)
            ]
    return found


def reason_of(line: str) -> str | None:
    """The reason why a command is not run; None if it is."""
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line)), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a reader: the zoo, the examples, and a virtual environment with the commands."""
    for name in ("zoo", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program = tmp_path / ".venv" / "bin" / "outrider"
    program.write_text(f"#!{sys.executable}\nfrom outrider.cli import main\nmain()\n")
    program.chmod(0o755)
    return tmp_path


def test_commands_are_found_and_most_are_run() -> None:
    lines = [line for page in PAGES for line in commands_of(page.read_text())]
    run = [line for line in lines if reason_of(line) is None]
    assert len(run) > 8, lines
    for words in ("gate record", "gate check", "gate compare", "bench serve", "chat", "curl"):
        assert any(words in line for line in run), f"no {words} in {run}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page: Path, folder: Path, server: ServerUnderTest) -> None:
    path = os.pathsep.join([str(folder / ".venv" / "bin"), os.environ["PATH"]])
    modules = os.pathsep.join([str(ROOT / "src"), *sys.path])
    environment = {
        **os.environ, "PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(folder)
    }  # fmt: skip
    for line in commands_of(page.read_text()):
        if reason_of(line) is not None:
            continue
        words = shlex.split(line, comments=True)
        name = " ".join(words[1:3])
        smaller = next((more for start, more in SMALLER.items() if name.startswith(start)), [])
        if name == "bench serve" and "--base-url" not in words:
            smaller = [*smaller, "--base-url", ADDRESS]
        words = [word.replace(ADDRESS, server.url.rstrip("/")) for word in [*words, *smaller]]
        if words[0] == "curl":
            words.append("--fail")
        done = subprocess.run(
            words, cwd=folder, env=environment, input="Anna has 14 apples and buys 9 more. How many?\n",
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, line
