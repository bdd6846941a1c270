"""Only the command line writes to a terminal. Everything else goes to the log, each module to its own logger."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "outrider"
FILES = sorted(SOURCE.rglob("*.py"))
PRESENTATION = {
    *(f"cli/{name}.py" for name in ("__init__", "demo", "generate", "info", "verdict")),
    "show.py",
    "bench/cli.py",
    "bench/serve/command.py",
    "gate/commands.py",
    "server/serve.py",
}
"""Files that show things to a person on purpose; server/serve.py shows what was chosen at the start."""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every call."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.append((node.lineno, ast.unparse(node.func)))
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    for line, name in calls(path):
        place = f"{name_of(path)}:{line}: {name}"
        last = name.rsplit(".", 1)[-1]
        assert name != "print" and not name.startswith("traceback.print"), f"{place}. Log it."
        assert name not in ("warnings.warn", "logging.warning", "logging.info", "logging.error"), f"{place}. Log it."
        if last == "print":
            assert name_of(path) in PRESENTATION, f"{place}. Log it, or return it to the command line."
        if name.endswith(("stderr.write", "stdout.write")):
            assert name_of(path) == "core/log.py", place


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_module_logs_to_its_own_logger(path: Path) -> None:
    if name_of(path) == "core/log.py":
        return
    text = path.read_text()
    for line, name in calls(path):
        if name.endswith("getLogger"):
            assert "logging.getLogger(__name__)" in text.splitlines()[line - 1], f"{name_of(path)}:{line}"


def test_the_presentation_files_exist() -> None:
    assert {name_of(path) for path in FILES} >= PRESENTATION
