"""The project's own lanes file: it names what exists, every file and every pytest marker has a lane, the GPU suite runs
for every folder of the device path, and the GitHub workflow runs what the file says."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from outrider.gate.baseline import read_baseline
from outrider.gate.lanes import read_lanes

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/lanes.yml"
PYTEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
MARKERS = [marker.split(":")[0] for marker in PYTEST["markers"]]
HOST_ONLY = {"bench", "chat", "cli", "quantizing", "server", "verify"}
"""Folders of src/outrider that cannot change a token."""


@pytest.fixture(scope="module")
def lanes():
    return read_lanes(ROOT / "lanes.toml")


def names(chosen):
    return [entry.lane.name for entry in chosen]


def recipes():
    """Target of the Makefile to the text of its recipe, with that of its prerequisites."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    found, needs = {}, {}
    for target, prerequisites, recipe in re.findall(r"^([\w-]+):([^=\n]*)\n((?:\t.*\n)*)", text, re.MULTILINE):
        found[target], needs[target] = recipe, prerequisites.split()
    return {target: "".join(found.get(name, "") for name in (*needs[target], target)) for target in found}


def pytest_calls(lanes):
    """The arguments of every pytest run of every lane."""
    made = recipes()
    for lane in lanes.lanes:
        for command in lane.commands:
            text = made[command.removeprefix("make ")] if command.startswith("make ") else command
            for line in re.findall(r"-m pytest\b(.*)", text):
                yield shlex.split(line)


def test_lanes_name_what_exists(lanes):
    entries = [entry for lane in lanes.lanes for entry in lane.entries]
    for entry in entries:
        assert read_baseline(ROOT / entry).entries
    written = (ROOT / "tests/gate/baselines").glob("*.toml")
    baselines = {str(path.relative_to(ROOT)) for path in written if "accuracy" not in path.name}
    assert baselines == set(entries)
    for lane in lanes.lanes:
        assert not lane.command or lane.command.removeprefix("make ") in recipes(), lane.name
    for hardware in lanes.hardware.values():
        assert not hardware.setup or hardware.setup.removeprefix("make ") in recipes(), hardware.name


def test_every_file_of_the_project_calls_for_a_lane(lanes):
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = done.stdout.splitlines()
    assert {"Makefile", "lanes.toml", "src/outrider/cli/serve.py"} <= set(files)
    assert [path for path in files if not lanes.due([path])] == []


def test_every_package_that_can_change_a_token_calls_for_the_gate_and_the_gpu_suite(lanes):
    packages = {path.parent.name for path in (ROOT / "src/outrider").glob("*/*.py")}
    assert {"kernels", "scheduler", "engine"} <= packages
    for package in packages - HOST_ONLY:
        due = names(lanes.due([f"src/outrider/{package}/x.py"]))
        assert {"gate of the zoo", "GPU suite"} <= set(due), package
    for package in packages & HOST_ONLY:
        assert names(lanes.due([f"src/outrider/{package}/x.py"])) == ["test", "test-all"], package


def test_the_gpu_suite_is_all_of_it(lanes):
    (suite,) = (lane for lane in lanes.lanes if lane.name == "GPU suite")
    assert suite.commands == ["make gpu-test"] and not suite.optional
    assert "-m pytest -m gpu tests\n" in recipes()["gpu-test"]


def test_what_takes_hours_runs_at_night(lanes):
    nightly = {lane.name for lane in lanes.lanes if lane.schedule == "nightly"}
    assert nightly >= {"identity matrix", "soak"}


@pytest.mark.parametrize("marker", MARKERS)
def test_every_marker_has_a_lane_that_runs_its_tests(lanes, marker):
    """For each file with such tests, a lane calls pytest with an expression that selects them, over its folder."""
    default = shlex.split(PYTEST["addopts"])
    files = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(rf"\bmark\.{marker}\b", path.read_text()) and path != Path(__file__)
    ]
    assert files, f"no test has the marker {marker}. Remove it from pyproject.toml."
    assert not selects(default, marker), f"`pytest` without arguments would run tests marked {marker}"
    for path in files:
        assert any(selects([*default, *call], marker) and covers(call, path) for call in pytest_calls(lanes)), (
            f"{path.relative_to(ROOT)} has tests marked {marker}, and no lane runs them"
        )


def selects(arguments, marker):
    """True if the last -m expression selects a test that has this marker only."""
    expression = [after for option, after in itertools.pairwise(arguments) if option == "-m"][-1]
    return eval(expression, {}, {name: name == marker for name in MARKERS})


def covers(arguments, path):
    """True if the paths among the arguments (all of tests/ if there are none) contain the file."""
    folders = [ROOT / word for word in arguments if not word.startswith("-") and (ROOT / word).exists()]
    return any(folder in (path, *path.parents) for folder in folders or [ROOT / "tests"])


def workflow():
    return yaml.safe_load(WORKFLOW.read_text())


def plan(root, **variables):
    """The entries that .ci/lanes prints, run by a Python that finds no installed package."""
    path = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-S", ".ci/lanes"], cwd=root, env=path | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    values = dict(line.split("=", 1) for line in done.stdout.splitlines())
    include = json.loads(values["matrix"])["include"]
    assert int(values["count"]) == len(include)
    return include


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, our lanes file and our source; yields its root and a function that runs git."""
    for name in ("lanes.toml", ".ci/lanes", "tests/gate/baselines"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "src").symlink_to(ROOT / "src")

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path, git


def test_the_plan_of_the_workflow_is_what_the_lanes_file_says(lanes, checkout):
    root, git = checkout
    base = git("rev-parse", "HEAD")
    (root / "docs").mkdir()
    (root / "docs/a.md").write_text("a")
    git("add", ".")
    git("commit", "-qm", "second")

    def named(include):
        return [entry["lane"] for entry in include]

    everything = [lane.name for lane in lanes.lanes]
    assert named(plan(root, EVENT="schedule", BASE="", IS_FORK="false")) == everything
    assert named(plan(root, EVENT="workflow_dispatch", BASE=base, IS_FORK="false")) == everything
    assert named(plan(root, EVENT="push", BASE="0" * 40, IS_FORK="false")) == everything
    assert named(plan(root, EVENT="push", BASE=base, IS_FORK="false")) == names(lanes.due(["docs/a.md"]))
    assert plan(root, EVENT="pull_request", BASE=git("rev-parse", "HEAD"), IS_FORK="false") == []

    (root / "zoo").mkdir()
    (root / "zoo/a").write_text("a")
    own = plan(root, EVENT="pull_request", BASE=base, IS_FORK="false")
    assert named(own) == names(lanes.due(["docs/a.md", "zoo/a"])) and "GPU suite" in named(own)
    fork = plan(root, EVENT="pull_request", BASE=base, IS_FORK="true")
    assert fork == [entry for entry in own if "self-hosted" not in entry["runs-on"]] != own


def test_the_workflow_runs_each_entry_of_the_plan(lanes):
    jobs = workflow()["jobs"]
    (decide,) = (step for step in jobs["plan"]["steps"] if step.get("id") == "lanes")
    assert decide["run"].startswith("python3 .ci/lanes ") and set(decide["env"]) == {"EVENT", "BASE", "IS_FORK"}
    lane = jobs["lane"]
    assert lane["needs"] == "plan"
    assert lane["strategy"] == {"fail-fast": False, "matrix": "${{ fromJSON(needs.plan.outputs.matrix) }}"}
    assert lane["runs-on"] == "${{ matrix.runs-on }}"
    assert lane["continue-on-error"] == "${{ matrix.optional }}"
    assert lane["steps"][-1]["run"] == "${{ matrix.run }}"
    (setup,) = (step for step in lane["steps"] if step.get("if") == "matrix.setup != ''")
    assert setup["run"].startswith("${{ matrix.setup }}\n")


def test_the_workflow_runs_for_every_change_and_every_night():
    text = WORKFLOW.read_text()
    events = workflow()[True]  # YAML 1.1 reads `on` as true
    assert set(events) == {"pull_request", "push", "schedule", "workflow_dispatch"}
    (schedule,) = events["schedule"]
    minute, hour, *rest = schedule["cron"].split()
    assert rest == ["*", "*", "*"] and minute.isdigit() and hour.isdigit()
    assert set(re.findall(r"matrix\.([\w-]+)", text)) <= {"lane", "runs-on", "setup", "run", "optional"}
