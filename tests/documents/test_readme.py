"""The README's code: its first program runs, its drafter can be used as it says, its step is the engine's."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`my_package.always_seven` of the README, on the path."""
    (source,) = blocks("Add a drafter in one file")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "always_seven.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_the_drafter_drafts_and_changes_no_token() -> None:
    params = SamplingParams(temperature=0.8, seed=7, max_tokens=12)
    plain, drafted = (
        LLM(str(ROOT / "zoo" / "tiny"), speculative_config=config).generate(["def fibonacci(n):"], params)[0]
        for config in (None, {"method": "my_package.always_seven", "num_speculative_tokens": 2})
    )
    assert drafted.outputs[0].token_ids == plain.outputs[0].token_ids
    assert drafted.speculation.num_draft_tokens > 12


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
