"""The engine's interpreter runs no module of the working directory, which may be a downloaded model's."""

import socket
from pathlib import Path

import pytest

from outrider.engine.launch import start_interpreter

NAMES = ("json", "sys", "typing", "regex", "torch", "numpy", "outrider", "sitecustomize", "usercustomize")


def test_modules_of_the_working_directory_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "was-run"
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    ours, end = socket.socketpair()
    process = start_interpreter(end)
    end.close()
    ours.close()  # the engine reads the end of its channel, and exits
    assert process.wait(timeout=60) != 7
    assert not marker.exists(), f"run: {marker.read_text()}"
