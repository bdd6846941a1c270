"""The engine's interpreter runs no module of the working directory, which may be a downloaded model's, and it exits
with its parent, whatever it does then."""

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
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


def test_every_interpreter_is_started_without_the_working_directory() -> None:
    root = Path(__file__).parents[2]
    files = [
        *(root / "src").rglob("*.py"),
        root / "benchmarks/traffic/ways.py",
        root / "tests/support/running_server.py",
    ]
    starts = [found for file in files for found in re.findall(r"sys\.executable, .*", file.read_text())]
    assert len(starts) >= 3
    assert all(start.startswith('sys.executable, "-P"') for start in starts), starts


PARENT = """
import os, socket, sys, time
from outrider.engine import launch
launch._PROGRAM = launch._PROGRAM.replace("from outrider.engine.process import main", "import ctypes").replace(
    "main(int(sys.argv[1]))", "print('keeps', flush=True); ctypes.PyDLL(None).sleep(60)"
)
ours, end = socket.socketpair()
print(launch.start_interpreter(end).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread watches the parent, which needs Python's lock")
def test_the_engine_exits_with_its_parent_while_a_library_keeps_the_lock() -> None:
    """A library may keep it while it opens a file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", textwrap.dedent(PARENT)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        parent.kill()
    (engine,) = said - {"keeps"}
    status = Path(f"/proc/{engine}/stat")
    end = time.monotonic() + 10
    while status.exists() and ") Z " not in status.read_text():
        assert time.monotonic() < end, "the engine outlives its parent"
        time.sleep(0.05)


PRINT = "import os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'), flush=True)"
ENGINE = f"""
import socket
from outrider.engine import launch
launch._PROGRAM = {PRINT!r}
launch.start_interpreter(socket.socketpair()[0]).wait()
"""
COMMAND_LINE = f"""
import sys
from outrider.cli import main
sys.argv = ["outrider", "info", "--help"]
try:
    main()
finally:
    assert "torch" not in sys.modules, "its threads have begun to spin"
    {PRINT}
"""


@pytest.mark.parametrize("program", [ENGINE, COMMAND_LINE], ids=["engine", "command line"])
@pytest.mark.parametrize(
    ("given", "found"), [({}, "PASSIVE None"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
                         ({"GOMP_SPINCOUNT": "5"}, "None 5")]
)  # fmt: skip
def test_threads_sleep_while_they_wait(program: str, given: dict[str, str], found: str) -> None:
    """Threads that spin keep the core from the one that they wait for, wherever another process wants a core."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | given
    command = [sys.executable, "-P", "-c", program]
    said = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    assert said.strip().splitlines()[-1] == found


COMMAND = "import sys\nfrom outrider.cli import main\nmain()\n"
CALLER = """
import asyncio
from outrider import AsyncLLM, SamplingParams
async def run():
    async with AsyncLLM(".") as llm:
        async for _ in llm.generate({"prompt_token_ids": [5, 6]}, SamplingParams(max_tokens=2)):
            pass
asyncio.run(run())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["info", "."], ["generate", ".", "--prompt", "a", "--max-tokens", "2"], ["bench", "latency", "."], []],
    ids=lambda arguments: arguments[0] if arguments else "AsyncLLM",
)
def test_no_command_runs_what_lies_beside_a_model(tmp_path: Path, arguments: list[str]) -> None:
    """The names of all modules that the command has imported at its end, and of some that it could."""
    zoo, marker = Path(__file__).parents[2] / "zoo" / "tiny", tmp_path / "was-run"
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "outrider"  # as pip installs it: its own folder is the first of the path
    script.write_text(COMMAND if arguments else CALLER)
    folder = tmp_path / "model"
    folder.mkdir()
    for path in zoo.iterdir():
        (folder / path.name).symlink_to(path)
    for name in {*sys.stdlib_module_names, *NAMES, "transformers", "tokenizers", "jinja2", "yaml", "PIL", "triton"}:
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert not marker.exists(), f"run: {marker.read_text()}"
    assert done.returncode == 0, done.stderr
