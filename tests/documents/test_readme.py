"""The README's first program runs, and its figures of vLLM are recorded. Its drafter runs in test_conformance.py, its
server in server/test_readme.py.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def test_the_first_program_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    exec(program, {})
    assert re.search(r" [1-4]\.\d+\n$", capsys.readouterr().out)


def test_every_figure_of_vllm_is_recorded() -> None:
    """`anchors.md` has every figure of the rows "vLLM 0.…" in tables of the README and of docs/."""
    anchors = (ROOT / "benchmarks" / "results" / "anchors.md").read_text()
    known = set(NUMBER.findall("\n".join(line for line in anchors.splitlines() if line.startswith("|"))))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    rows = [line for page in pages for line in page.read_text().splitlines() if line.startswith("| vLLM 0.")]
    assert len(rows) >= 4, "rows of vLLM in the README's table"
    for row in rows:
        figures = NUMBER.findall(row.split("|", 2)[2])
        assert figures and set(figures) <= known, row
