"""Spinners and bars appear on a terminal and leave nothing behind; a file gets nothing."""

import os
import sys
from pathlib import Path

import pytest

from outrider import progress
from tests.support.terminal import Terminal, without_codes

ROOT = Path(__file__).parents[2]
PROGRAM = """
import time
from outrider import progress
progress._BAR_AFTER = 0.0
with progress.working("Loading"):
    time.sleep(0.3)
with progress.bar(4, text="generating") as advance:
    for count in range(1, 5):
        time.sleep(0.15)
        advance(count)
print("done")
"""


def test_a_terminal_shows_progress_that_goes_away() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with Terminal([sys.executable, "-c", PROGRAM], environment=environment, cwd=str(ROOT)) as terminal:
        terminal.wait_for("Loading.*generating.*done")
        assert terminal.end() == 0
    assert "0/4" in terminal.shown or "1/4" in terminal.shown
    assert "\x1b[2K" in terminal.shown, "the lines are erased"
    assert without_codes(terminal.shown).rstrip().endswith("done")


def test_a_file_gets_nothing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BAR_AFTER", 0.0)
    with progress.working("Loading"), progress.bar(2, text="generating") as advance:
        advance(1)
    assert capfd.readouterr() == ("", "")
