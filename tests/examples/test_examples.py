"""Every program in examples/ runs on the zoo and prints what it promises.

The one that needs a server is run against the server of tests/server/test_readme.py.
"""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PRINTS = {
    "chat.py": (
        r"#### 18\b",
        r"#### 36\b",
        r"#### 19\b",
        r"--- [1-9]\d+ of \d+ prompt tokens came from the prefix cache",
    ),
    "compare_drafters.py": (
        r"none +[\d.]+ +96 +1\.00",
        r"eagle3 .* 2\.\d\d  0\.\d\d",
        "All drafters gave the same tokens",
    ),
    "generate.py": (r"--- 48 tokens in 2\d steps, acceptance length 2\.\d\d, finished by length",),
    "stream_async.py": (r"\ba d+t? ", "a done: 24 tokens", "b done: 24 tokens", "c gives up after"),
    "structured_output.py": (
        r'JSON schema  \{"fruit":',
        r"The answer is \d+\.",
        r"choice +(more than|at most) twenty",
        "parsed",
    ),
}
"""File to expressions that its output contains."""
NEEDS_SERVER = {"server_client.py"}
MAX_LINES = 60


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == set(PRINTS) | NEEDS_SERVER


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_prints_what_it_promises(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out = capsys.readouterr().out
    for expression in PRINTS[name]:
        assert re.search(expression, out), f"{expression!r} is not in:\n{out}"


@pytest.mark.parametrize("name", sorted(set(PRINTS) | NEEDS_SERVER))
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert f"run it from the repository: python examples/{name}" in text.split('"""')[1].replace("Run", "run")
