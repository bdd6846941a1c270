"""Lanes: which gate entries and tests run on which hardware, for which changed source files. Reads one TOML file.

A lane runs on a change if one of its sources changed; a nightly lane only at night; an optional lane may fail without
failing the build; a lane with a reason to skip is listed with that reason and not run.
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from outrider.gate.baseline import read_baseline
from outrider.gate.errors import GateError

CHANGE, NIGHTLY = "change", "nightly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A kind of machine, its names in CI systems, and how it is set up."""

    name: str
    runs_on: list[str]
    """Labels of a GitHub Actions runner."""
    queue: str
    """Name of a Buildkite queue."""
    setup: str = ""
    """Command that makes `.venv` with what the lanes need; empty where the machine has it installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One CI job."""

    name: str
    hardware: str
    sources: list[str]
    """Globs of files from the repository's root: *, ** across folders, {a,b}."""
    entries: list[str]
    """Baseline files that `outrider gate check` runs; may contain * and ?."""
    marks: list[str]
    """Keeps only the entries that carry all these marks."""
    tests: list[str]
    """Arguments of pytest."""
    command: str
    """Runs in place of entries and tests, e.g. a target of the Makefile."""
    schedule: str = CHANGE
    optional: bool = False
    skip: str = ""
    """Reason why the lane does not run at present; an empty string runs it."""

    @property
    def commands(self) -> list[str]:
        """Shell commands in the order in which they run."""
        if self.command:
            return [self.command]
        checks = [f"outrider gate check --baseline {entry}" for entry in self.entries]
        return [*checks, *([f"python -m pytest {' '.join(self.tests)}"] if self.tests else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A lane that is due, and why."""

    lane: Lane
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """One lanes file."""

    hardware: Mapping[str, Hardware]
    lanes: tuple[Lane, ...]

    def due(self, changed: Sequence[str], *, is_nightly: bool = False) -> list[Chosen]:
        """Lanes for the changed files, in the file's order; `is_nightly` returns every lane."""
        chosen = []
        for lane in self.lanes:
            if is_nightly:
                chosen.append(Chosen(lane=lane, reason="nightly"))
                continue
            if lane.schedule == NIGHTLY:
                continue
            touched = [path for path in changed if any(matches(path, glob) for glob in lane.sources)]
            if touched:
                more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
                chosen.append(Chosen(lane=lane, reason=f"{touched[0]}{more} changed"))
        return chosen


def matches(path: str, glob: str) -> bool:
    """Returns True if `glob` matches `path`: * within a folder, ** across folders, {a,b} for alternatives."""
    parts = re.split(r"(\*\*/?|[*?{,}])", glob)
    forms = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", ",": "|", "}": ")"}
    return re.fullmatch("".join(forms.get(part, re.escape(part)) for part in parts), path) is not None


def read_lanes(path: Path) -> Lanes:
    """Reads a lanes file. Raises GateError that names the lane and the key."""
    if not path.is_file():
        raise GateError(f"--file {path} is not a file. Write a lanes file; `lanes.toml` of this project is one.")
    try:
        document = tomllib.loads(path.read_text())
        hardware = {name: Hardware(name=name, **values) for name, values in document["hardware"].items()}
        lanes = tuple(_lane(values, path) for values in document["lane"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise GateError(f"{path} cannot be read as a lanes file: {error!r}.") from error
    names = [lane.name for lane in lanes]
    for lane in lanes:
        if names.count(lane.name) > 1:
            raise GateError(f"{path}: two lanes are called {lane.name!r}. Rename one.")
        if lane.hardware not in hardware:
            raise GateError(f"{path}: lane {lane.name!r} wants hardware {lane.hardware!r}. Known: {sorted(hardware)}.")
        if lane.schedule not in (CHANGE, NIGHTLY):
            raise GateError(f"{path}: lane {lane.name!r} has schedule {lane.schedule!r}. Use 'change' or 'nightly'.")
        if not lane.commands:
            raise GateError(f"{path}: lane {lane.name!r} runs nothing. Give entries, tests or a command.")
    return Lanes(hardware=hardware, lanes=tuple(_with_entries(lane, path.resolve().parent) for lane in lanes))


def _with_entries(lane: Lane, root: Path) -> Lane:
    """Returns the lane with its patterns replaced by files, and files without its marks removed."""
    found: list[str] = []
    for pattern in lane.entries:
        if "*" not in pattern and "?" not in pattern:
            found.append(pattern)
            continue
        paths = sorted(str(path.relative_to(root)) for path in root.glob(pattern))
        if not paths:
            raise GateError(f"lane {lane.name!r}: no baseline is called {pattern!r}. Record one, or remove it.")
        found += paths
    if lane.marks:
        found = [entry for entry in found if set(lane.marks) <= set(read_baseline(root / entry).settings.marks)]
    return replace(lane, entries=found)


def _lane(values: dict[str, Any], path: Path) -> Lane:
    known = {entry.name for entry in fields(Lane)}
    unknown = set(values) - known
    if unknown:
        raise GateError(f"{path}: a lane has {sorted(unknown)}, which is not known. Known: {sorted(known)}.")
    return Lane(**{"sources": [], "entries": [], "marks": [], "tests": [], "command": "", **values})


def changed_files(since: str, *, root: Path) -> list[str]:
    """Paths, relative to `root`, that differ between the working tree and `since`, untracked files included.

    Raises GateError with git's message."""
    found: set[str] = set()
    for command in (
        ["diff", "--name-only", "--no-renames", f"{since}", "--"],
        ["ls-files", "--others", "--exclude-standard"],
    ):
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GateError(f"git cannot list what changed since {since!r}: {done.stderr.strip()}")
        found.update(done.stdout.splitlines())
    return sorted(found)


def github_matrix(lanes: Lanes, chosen: Sequence[Chosen]) -> str:
    """JSON for `strategy: matrix: ${{ fromJSON(…) }}` of a GitHub workflow; skipped lanes are left out."""
    include = [
        {
            "lane": entry.lane.name,
            "hardware": entry.lane.hardware,
            "runs-on": lanes.hardware[entry.lane.hardware].runs_on,
            "setup": lanes.hardware[entry.lane.hardware].setup,
            "run": " && ".join(entry.lane.commands),
            "optional": entry.lane.optional,
            "reason": entry.reason,
        }
        for entry in chosen
        if not entry.lane.skip
    ]
    return json.dumps({"include": include}, indent=2)


def buildkite_steps(lanes: Lanes, chosen: Sequence[Chosen]) -> str:
    """A Buildkite pipeline in YAML; skipped lanes are listed with their reason. Strings are quoted as JSON."""
    if not chosen:
        return "steps: []"
    lines = ["steps:"]
    for entry in chosen:
        lane = entry.lane
        lines.append(f"  - label: {json.dumps(lane.name)}")
        lines.append(f"    key: {json.dumps(re.sub(r'[^A-Za-z0-9_-]', '-', lane.name))}")
        lines.append("    commands:")
        setup = lanes.hardware[lane.hardware].setup
        first = [setup, 'export PATH="$PWD/.venv/bin:$PATH"'] if setup else []
        lines += [f"      - {json.dumps(command)}" for command in [*first, *lane.commands]]
        lines.append("    agents:")
        lines.append(f"      queue: {json.dumps(lanes.hardware[lane.hardware].queue)}")
        if lane.optional:
            lines.append("    soft_fail: true")
        if lane.skip:
            lines.append(f"    skip: {json.dumps(lane.skip)}")
    return "\n".join(lines)


def table(chosen: Sequence[Chosen]) -> str:
    """Text for a terminal: each lane with its reason, then its commands."""
    if not chosen:
        return "nothing to run"
    lines = []
    for entry in chosen:
        lane = entry.lane
        notes = [
            entry.reason,
            *(["optional"] if lane.optional else []),
            *([f"SKIPPED: {lane.skip}"] if lane.skip else []),
        ]
        lines.append(f"{lane.name} on {lane.hardware} ({'; '.join(notes)})")
        lines += [f"    {command}" for command in lane.commands]
    return "\n".join(lines)
