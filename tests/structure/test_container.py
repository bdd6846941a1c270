"""The container: without root, with a health check, pinned, and described by commands that make it read-only."""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
LINES = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
TARGETS = ("cpu", "cuda")


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, with those of the stage that it begins from."""
    found: dict[str, list[str]] = {}
    now = ""
    for line in filter(None, map(str.strip, LINES)):
        if line.startswith("FROM "):
            base, now = re.fullmatch(r"FROM (\S+) AS (\w+)", line).groups()  # type: ignore[union-attr]
            found[now] = [*found.get(base, [])]
        found[now].append(line)
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs_without_root_and_says_whether_it_is_healthy(target: str) -> None:
    lines = stages()[target]
    user = [line for line in lines if line.startswith("USER ")]
    assert user == ["USER 10001:10001"], "a number, so that a cluster can see that it is not root"
    assert lines.index(user[0]) > max(i for i, line in enumerate(lines) if line.startswith(("RUN ", "COPY ")))
    assert any(line.startswith("HEALTHCHECK ") and "/health" in line for line in lines)
    assert json.loads(lines[-2].removeprefix("ENTRYPOINT ")) == ["outrider"]
    assert json.loads(lines[-1].removeprefix("CMD ")) == ["serve", "--host", "0.0.0.0"]


def test_versions_are_those_of_the_constraints() -> None:
    for line in LINES:
        if "pip install" in line and not re.search(r" build==[\d.]+$", line):
            assert "--constraint /tmp/constraints.txt" in line and "--no-cache-dir" in line, line
        assert not line.startswith("ADD ") and not re.search(r"FROM \S+:latest|FROM [^:\s]+ AS (?!cpu|cuda)", line), (
            line
        )


def test_what_it_writes_is_in_one_folder_and_the_commands_make_the_rest_read_only() -> None:
    caches = dict(re.findall(r"(HF_HOME|TRITON_CACHE_DIR|XDG_CACHE_HOME|HOME)=(\S+)", TEXT))
    assert len(caches) == 4 and all(path.startswith("/cache") for path in caches.values())
    commands = re.findall(r"docker run (?:.*\\\n#)*.*", TEXT)
    assert len(commands) == len(TARGETS)
    for command in commands:
        for option in (
            "--read-only",
            "--tmpfs /tmp",
            "--cap-drop ALL",
            "no-new-privileges",
            "-v outrider-cache:/cache",
        ):
            assert option in command, option


def test_every_file_that_it_copies_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    let_through = [entry[1:] for entry in ignored if entry.startswith("!")]
    for line in LINES:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists() and any(fnmatch(source, entry) for entry in let_through), source


@pytest.mark.slow
def test_the_linter_has_nothing_to_say() -> None:
    path = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if path is None:
        pytest.skip("hadolint is not installed (extra dev)")
    done = subprocess.run([path, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
