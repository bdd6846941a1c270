"""The README's first program runs. Its drafter runs in test_conformance.py, its server in server/test_readme.py."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_first_program_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    exec(program, {})
    assert re.search(r" [1-4]\.\d+\n$", capsys.readouterr().out)
