"""Lanes: what is due for a change, in three forms; and the project's own lanes file."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from outrider.gate.baseline import Baseline, Settings, write_baseline
from outrider.gate.errors import GateError
from outrider.gate.lanes import buildkite_steps, changed_files, github_matrix, matches, read_lanes, table

from .samples_made_here import measurement, sample

ROOT = Path(__file__).resolve().parents[2]

FILE = """
[hardware.cpu]
runs_on = ["ubuntu-latest"]
queue = "default"
setup = "make ready"
[hardware.gpu]
runs_on = ["self-hosted", "gpu"]
queue = "gpu: big"

[[lane]]
name = "drafter: greedy"
hardware = "cpu"
entries = ["b/a.toml"]
tests = ["tests/gate", "-x"]
sources = ["src/{speculation,sampling}/**"]

[[lane]]
name = "kernels"
hardware = "gpu"
tests = ["tests/gpu"]
sources = ["src/kernels/*.py"]
optional = true

[[lane]]
name = "broken"
hardware = "gpu"
command = "make it"
sources = ["src/**"]
skip = "waits for \\"drivers\\""

[[lane]]
name = "all night"
hardware = "cpu"
command = "make matrix"
schedule = "nightly"
"""


@pytest.fixture
def lanes(tmp_path):
    (tmp_path / "lanes.toml").write_text(FILE)
    return read_lanes(tmp_path / "lanes.toml")


def names(chosen):
    return [entry.lane.name for entry in chosen]


@pytest.mark.parametrize(
    ("path", "glob", "expected"),
    [
        ("src/a.py", "src/*.py", True),
        ("src/b/a.py", "src/*.py", False),
        ("src/b/c/a.py", "src/**", True),
        ("src/b/c/a.py", "src/**/a.py", True),
        ("src/a.py", "src/**/a.py", True),
        ("src/xa.py", "src/**/a.py", False),
        ("src/models/a", "src/{models,layers}/*", True),
        ("src/modelsx/a", "src/{models,layers}/*", False),
        ("Makefile", "Makefile", True),
        ("a.md", "?.md", True),
        ("axmd", "?.md", False),
    ],
)
def test_globs(path, glob, expected):
    assert matches(path, glob) is expected


def test_a_change_calls_for_the_lanes_of_its_files(lanes):
    assert names(lanes.due([])) == []
    assert names(lanes.due(["docs/a.md"])) == []
    assert names(lanes.due(["src/sampling/noise.py"])) == ["drafter: greedy", "broken"]
    assert names(lanes.due(["src/kernels/x.py", "src/speculation/y.py"])) == ["drafter: greedy", "kernels", "broken"]
    assert names(lanes.due([], is_nightly=True)) == ["drafter: greedy", "kernels", "broken", "all night"]


def test_a_lane_chooses_baselines_by_pattern_and_mark(tmp_path):
    for name, marks in (("a", ["slow", "big"]), ("b", []), ("c", ["slow"])):
        made = Settings(
            model="m", speculative_config={}, num_speculative_tokens=3, prompts="p", prompts_digest="0", marks=marks
        )
        baseline = Baseline(settings=made, entries=()).with_entry(measurement([sample("1")]))
        write_baseline(baseline, tmp_path / "b" / f"{name}.toml")

    def entries(lines):
        text = FILE.replace('entries = ["b/a.toml"]', lines)
        (tmp_path / "lanes.toml").write_text(text)
        return read_lanes(tmp_path / "lanes.toml").lanes[0].entries

    assert entries('entries = ["b/*.toml"]') == ["b/a.toml", "b/b.toml", "b/c.toml"]
    assert entries('entries = ["b/*.toml"]\nmarks = ["slow"]') == ["b/a.toml", "b/c.toml"]
    assert entries('entries = ["b/c.toml", "b/a.toml"]\nmarks = ["slow", "big"]') == ["b/a.toml"]
    with pytest.raises(GateError, match="no baseline is called 'x/"):
        entries('entries = ["x/*.toml"]')


def test_github_matrix(lanes):
    matrix = json.loads(github_matrix(lanes, lanes.due(["src/kernels/x.py", "src/speculation/y.py"])))
    first, second = matrix["include"]  # the skipped lane is left out
    assert first == {
        "lane": "drafter: greedy",
        "hardware": "cpu",
        "runs-on": ["ubuntu-latest"],
        "setup": "make ready",
        "run": "outrider gate check --baseline b/a.toml && python -m pytest tests/gate -x",
        "optional": False,
        "reason": "src/speculation/y.py changed",
    }
    assert second["optional"] is True and second["runs-on"] == ["self-hosted", "gpu"]
    assert second["setup"] == ""
    assert json.loads(github_matrix(lanes, [])) == {"include": []}


def test_buildkite_steps(lanes):
    pipeline = yaml.safe_load(buildkite_steps(lanes, lanes.due(["src/kernels/x.py", "src/speculation/y.py"])))
    first, second, third = pipeline["steps"]
    assert first == {
        "label": "drafter: greedy",
        "key": "drafter--greedy",
        "commands": [
            "make ready",
            'export PATH="$PWD/.venv/bin:$PATH"',
            "outrider gate check --baseline b/a.toml",
            "python -m pytest tests/gate -x",
        ],
        "agents": {"queue": "default"},
    }
    assert second["soft_fail"] is True and second["agents"]["queue"] == "gpu: big"
    assert second["commands"] == ["python -m pytest tests/gpu"]
    assert third["skip"] == 'waits for "drivers"'
    assert yaml.safe_load(buildkite_steps(lanes, [])) == {"steps": []}


def test_text_says_why_and_what(lanes):
    text = table(lanes.due(["src/kernels/x.py"]))
    assert 'broken on gpu (src/kernels/x.py changed; SKIPPED: waits for "drivers")' in text
    assert "kernels on gpu (src/kernels/x.py changed; optional)" in text and "make it" in text
    assert table([]) == "nothing to run"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('hardware = "gpu"', 'hardware = "tpu"', "wants hardware 'tpu'"),
        ('name = "kernels"', 'name = "broken"', "two lanes are called 'broken'"),
        ('schedule = "nightly"', 'schedule = "weekly"', "has schedule 'weekly'"),
        ("optional = true", "optinal = true", "optinal"),
        ('command = "make it"\n', "", "runs nothing"),
        ("[hardware.cpu]", "[hardware.cpu", "cannot be read"),
        ('queue = "default"\n', "", "queue"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, old, new, words):
    assert old in FILE
    (tmp_path / "lanes.toml").write_text(FILE.replace(old, new, 1))
    with pytest.raises(GateError, match=words):
        read_lanes(tmp_path / "lanes.toml")
    with pytest.raises(GateError, match="is not a file"):
        read_lanes(tmp_path / "absent.toml")


def test_changed_files_are_those_of_git(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    for name in ("kept.py", "edited.py", "deleted.py"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    assert changed_files("HEAD", root=tmp_path) == []
    (tmp_path / "edited.py").write_text("2")
    (tmp_path / "deleted.py").unlink()
    (tmp_path / "new.py").write_text("3")
    assert changed_files("HEAD", root=tmp_path) == ["deleted.py", "edited.py", "new.py"]
    git("add", ".")
    git("commit", "-qm", "second")
    assert changed_files("HEAD", root=tmp_path) == []
    assert changed_files("HEAD~1", root=tmp_path) == ["deleted.py", "edited.py", "new.py"]
    with pytest.raises(GateError, match="git cannot list what changed since 'nowhere'"):
        changed_files("nowhere", root=tmp_path)
