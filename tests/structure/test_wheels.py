"""The two wheels in a new environment and an empty folder: what a user gets from `pip install outrider outrider-zoo`.

The new environment borrows the packages that this one has (torch and the rest are large); outrider itself is not among
them, and comes from the wheels alone.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    "outrider": ("pyproject.toml", "README.md", "LICENSE", "src"),
    "zoo": ("pyproject.toml", "README.md", "LICENSE", "LICENSE-NOTES.md", "prompts.jsonl", "questions.jsonl"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed; prints how long it took."""
    begin = time.monotonic()
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    print(f"{time.monotonic() - begin:5.1f} s  {Path(str(command[0])).name} {' '.join(map(str, command[1:]))[:60]}")
    return done.stdout


def build(name: str, *, folder: Path) -> None:
    """Puts the wheel of a project into `folder`/wheels; the repository stays as it is."""
    source, copy = ROOT if name == "outrider" else ROOT / name, folder / f"source-{name}"
    copy.mkdir()
    listed = [*SOURCES[name], *(path.name for path in source.glob("tiny*") if path.is_dir())]
    for entry in listed:
        path = (source / entry).resolve()
        if path.is_dir():
            shutil.copytree(path, copy / entry, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, copy / entry)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheels", copy, cwd=folder)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that has both wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        build(name, folder=folder)
    run(sys.executable, "-m", "venv", folder / "new", cwd=folder)
    binaries = folder / "new" / "bin"
    packages = next((folder / "new").glob("lib/python*/site-packages"))
    wheels = sorted((folder / "wheels").glob("*.whl"))
    run(binaries / "python", "-m", "pip", "install", "-q", "--no-deps", *wheels, cwd=folder)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def test_wheels_hold_what_they_should(binaries: Path) -> None:
    packages = next(binaries.parent.glob("lib/python*/site-packages"))
    assert (packages / "outrider" / "py.typed").is_file() and (packages / "outrider" / "server" / "page").is_dir()
    assert not list(packages.glob("outrider_zoo/recipe*")), "the recipe is no part of the zoo"
    listed = {path.parent.name for path in packages.glob("outrider_zoo/*/model.safetensors")}
    assert listed == {path.parent.name for path in ROOT.glob("zoo/*/model.safetensors")}


def test_first_commands_work_in_an_empty_folder(binaries: Path, tmp_path: Path) -> None:
    where = run(binaries / "python", "-c", "import outrider; print(outrider.__file__)", cwd=tmp_path)
    assert where.startswith(str(binaries.parent)), where
    assert run(binaries / "python", "-m", "outrider", "--version", cwd=tmp_path) == run(
        binaries / "outrider", "--version", cwd=tmp_path
    )
    assert "exact" in run(binaries / "outrider", "info", cwd=tmp_path)
    assert "EAGLE-3" in run(binaries / "outrider", "demo", cwd=tmp_path)


def test_the_first_program_of_the_readme_works_in_an_empty_folder(binaries: Path, tmp_path: Path) -> None:
    program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    assert re.search(r" [1-4]\.\d+\n$", run(binaries / "python", "-c", program, cwd=tmp_path))


def test_a_server_answers_from_an_empty_folder(binaries: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    server = subprocess.Popen(
        [binaries / "outrider", "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        lines: list[str] = []
        while not lines or "Ready on" not in lines[-1]:
            line = server.stdout.readline()
            assert line, "".join(lines)
            lines.append(line)
        print(f"{time.monotonic() - begin:5.1f} s  outrider serve, ready")
        url = lines[-1].split()[-1]
        body = b'{"model": "zoo/tiny", "prompt": "def add(a, b):", "max_tokens": 8, "temperature": 0}'
        request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200 and b'"text"' in answer.read()
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0
        assert server.stdout is not None
        server.stdout.close()
