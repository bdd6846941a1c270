"""Applies the faults of mutations.toml, one at a time, and shows which test sees each.

    python -m tests.mutations                  every fault, against the files that should see it
    python -m tests.mutations --area sampler   the faults of one area (repeatable)
    python -m tests.mutations --name S5        one fault (repeatable)
    python -m tests.mutations --whole          a fault that survives its files meets the whole fast suite, too

A fault is caught by a test of meaning: tests that only compare two implementations of a kernel (TWINS) are left out,
because a change made to both would pass them. The exit code is 0 if every fault was caught. `--table FILE` writes the
result as Markdown. Works on a copy of HEAD in a temporary folder; the working tree is not touched.
"""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
TWINS = ("test_*interpret*.py", "kernels/test_conformance.py")
"""Files whose tests compare the kernels of a GPU with plain PyTorch."""
LIMIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One fault."""

    name: str
    area: str
    what: str
    """Description of the fault for a person."""
    file: str
    """Relative to the root of the repository."""
    old: str
    """Occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files that should see it, below tests/, the most specific first; after a space, an expression for `-k`."""
    is_slow: bool = False
    """Only `make test-all` sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of one fault."""

    mutation: Mutation
    caught_by: str | None
    """Id of the first test that failed; None: it survived."""
    seconds: float
    is_foreseen: bool = True
    """A file named in the list saw it."""


def read_mutations(path: Path = LIST) -> list[Mutation]:
    """All faults, in the order of the list."""
    entries = tomllib.loads(path.read_text())["mutation"]
    return [Mutation(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def apply(mutation: Mutation, root: Path) -> None:
    """Put the fault into the tree at `root`."""
    path = root / mutation.file
    text = path.read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise SystemExit(f"{mutation.name}: its old text occurs {count} times in {mutation.file}. Correct the list.")
    path.write_text(text.replace(mutation.old, mutation.new))


def first_failure(root: Path, arguments: Sequence[str]) -> str | None:
    """Id of the first test that fails, or None where all pass; a run that hangs counts as a failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments]
    command += [f"--ignore-glob=*/{pattern}" for pattern in TWINS]
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - |$)", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"pytest ended with {done.returncode} and no failed test:\n{done.stdout[-2000:]}{done.stderr}")
    return found[1]


def meet(mutation: Mutation, root: Path, *, whole: bool) -> Outcome:
    """Run the files that should see the fault, then the whole fast suite if asked to."""
    start = time.monotonic()
    marks = ["-m", "not gpu and not matrix and not soak"] if mutation.is_slow else []
    for entry in mutation.tests:
        file, _, expression = entry.partition(" ")
        failure = first_failure(root, [f"tests/{file}", *(["-k", expression] if expression else []), *marks])
        if failure is not None:
            return Outcome(mutation=mutation, caught_by=failure, seconds=time.monotonic() - start)
    failure = first_failure(root, ["tests"]) if whole else None
    return Outcome(mutation=mutation, caught_by=failure, seconds=time.monotonic() - start, is_foreseen=failure is None)


def table(outcomes: Sequence[Outcome], *, command: str, revision: str) -> str:
    """The result as Markdown."""
    fast = [outcome for outcome in outcomes if not outcome.mutation.is_slow]
    num_caught = sum(outcome.caught_by is not None for outcome in outcomes)
    num_fast = sum(outcome.caught_by is not None for outcome in fast)
    lines = [
        "# Faults put in on purpose, and the tests that see them",
        "",
        f"{datetime.date.today()}, revision {revision}, `{command}`. {num_caught} of {len(outcomes)} faults are "
        f"caught, {num_fast} of them by the fast suite ({num_fast / len(outcomes):.0%}). Tests that compare two "
        "implementations of a kernel did not run. Seconds are those until the first red test, imports included.",
        "",
        "| fault | area | what is wrong | caught by | s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for outcome in outcomes:
        mutation = outcome.mutation
        seen = f"`{outcome.caught_by.removeprefix('tests/')}`" if outcome.caught_by else "**survived**"
        seen += " (make test-all)" if mutation.is_slow else ""
        cells = (mutation.name, mutation.area, mutation.what, seen, f"{outcome.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--area", action="append", help="Only the faults of this area.")
    parser.add_argument("--name", action="append", help="Only this fault.")
    parser.add_argument("--whole", action="store_true", help="Run the whole fast suite on what survives its files.")
    parser.add_argument("--table", type=Path, help="Write the result to this file, as Markdown.")
    options = parser.parse_args()
    mutations = [
        mutation
        for mutation in read_mutations()
        if (not options.area or mutation.area in options.area) and (not options.name or mutation.name in options.name)
    ]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    folder = Path(tempfile.mkdtemp(prefix="mutations-"))
    root = folder / "tree"
    outcomes = []
    git("worktree", "add", "--detach", str(root), "HEAD")
    try:
        for mutation in mutations:
            apply(mutation, root)
            outcome = meet(mutation, root, whole=options.whole)
            outcomes.append(outcome)
            seen = outcome.caught_by or "SURVIVED"
            note = "" if outcome.is_foreseen else " (not a file of the list)"
            print(f"{mutation.name:6} {outcome.seconds:5.0f} s  {seen}{note}", flush=True)
            subprocess.run(["git", "checkout", "-q", "--", mutation.file], cwd=root, check=True)
    finally:
        git("worktree", "remove", "--force", str(root))
        shutil.rmtree(folder, ignore_errors=True)
    survivors = [outcome.mutation.name for outcome in outcomes if outcome.caught_by is None]
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} caught; survived: {', '.join(survivors) or 'none'}")
    if options.table is not None:
        revision = git("rev-parse", "--short", "HEAD")
        options.table.write_text(table(outcomes, command=" ".join(sys.orig_argv[1:]), revision=revision))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
