"""Only the command line writes to a terminal. Everything else goes to the log, each module to its own logger."""

import ast
from functools import cache
from pathlib import Path

from tests.support.parsed_source import nodes_of

SOURCE = Path(__file__).parents[2] / "src" / "outrider"
FILES = sorted(SOURCE.rglob("*.py"))
PRESENTATION = {
    *(f"cli/{name}.py" for name in ("__init__", "chat", "demo", "generate", "info", "pull", "quantize", "verdict")),
    "cli/verify.py",
    "chat/screen.py",
    "show.py",
    "bench/cli.py",
    "bench/serve/command.py",
    "gate/commands.py",
    "server/serve.py",
}
"""Files that show things to a person on purpose; server/serve.py shows what was chosen at the start."""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@cache
def calls() -> list[tuple[str, int, str]]:
    """(file, line, dotted name) of every call."""
    return [
        (name_of(path), node.lineno, ast.unparse(node.func))
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
    ]


def test_only_the_command_line_prints() -> None:
    for file, line, name in calls():
        place = f"{file}:{line}: {name}"
        last = name.rsplit(".", 1)[-1]
        assert name != "print" and not name.startswith("traceback.print"), f"{place}. Log it."
        assert name not in ("warnings.warn", "logging.warning", "logging.info", "logging.error"), f"{place}. Log it."
        if last == "print":
            assert file in PRESENTATION, f"{place}. Log it, or return it to the command line."
        if name.endswith(("stderr.write", "stdout.write")):
            assert file == "core/log.py", place


def test_each_module_logs_to_its_own_logger() -> None:
    places = [(file, line) for file, line, name in calls() if name.endswith("getLogger") and file != "core/log.py"]
    assert len(places) > 3
    for file, line in places:
        assert "logging.getLogger(__name__)" in (SOURCE / file).read_text().splitlines()[line - 1], f"{file}:{line}"


def test_the_presentation_files_exist() -> None:
    assert {name_of(path) for path in FILES} >= PRESENTATION
