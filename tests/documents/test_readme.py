"""The README's code: its first program runs, its step is the engine's. Its drafter runs in test_conformance.py."""

import inspect
import re
from pathlib import Path

import pytest

from outrider.runtime.step import Step

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(section: str) -> list[str]:
    """The Python blocks of a section; "" is the part before the first one."""
    heading = f"## {section}\n" if section else "# Outrider\n"
    (body,) = re.findall(rf"^{re.escape(heading)}(.*?)(?=^## |\Z)", README, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)


def test_the_first_program_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (program,) = blocks("")
    exec(program, {})
    assert re.search(r" [1-4]\.\d+\n$", capsys.readouterr().out)


def test_the_step_is_that_of_the_engine() -> None:
    """Each line, up to its "...", is in Step.__call__, in this order."""
    (program,) = blocks("The step")
    source = without_spaces(inspect.getsource(Step.__call__))
    at = 0
    for line in program.splitlines():
        code = without_spaces(line.split("  #")[0].partition("...")[0]).rstrip(",")
        found = source.find(code, at)
        assert found >= 0, f"{line!r} is not in Step.__call__ after the lines before it"
        at = found + len(code)


def without_spaces(code: str) -> str:
    return re.sub(r"\s", "", code)
