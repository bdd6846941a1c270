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


def figures_of_vllm(page: str) -> list[str]:
    """Cells of tables whose row or column is named after vLLM."""
    found, header = [], []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        header = header or cells if cells else []
        for name, cell in zip(header[1:], cells[1:], strict=False):
            if cells is not header and ("vLLM" in name or "vLLM" in cells[0]):
                found.append(cell)
    return found


def test_every_figure_of_vllm_is_recorded() -> None:
    anchors = (ROOT / "benchmarks" / "results" / "anchors.md").read_text()
    known = {number for line in anchors.splitlines() if line.startswith("|") for number in NUMBER.findall(line)}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    cells = [cell for page in pages for cell in figures_of_vllm(page.read_text())]
    assert len(cells) > 20, "the README compares speeds"
    assert [cell for cell in cells if not known.issuperset(NUMBER.findall(cell))] == []


def test_figures_of_vllm_are_found_in_rows_and_columns() -> None:
    rows = "text\n\n| | c = 1 | 8 |\n|---|---|---|\n| ours | 1 | 2 |\n| vLLM 0.26 | 3 | 4 to 5 |\n"
    columns = "\n| | vLLM plain | ours |\n|---|---|---|\n| tokens/s | 6 | 7 |\n"
    assert figures_of_vllm(rows + columns) == ["3", "4 to 5", "---", "6"]
