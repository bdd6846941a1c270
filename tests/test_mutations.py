"""The list of faults (mutations.toml) cannot rot: every fault can be put in, and names tests that exist."""

import ast
from collections import Counter

from tests.mutations import ROOT, TWINS, Mutation, read_mutations

AREAS = {
    "scheduler", "prefix cache", "assemble", "commit", "verify", "sampler", "noise", "heads", "MTP", "n-gram", "states",
    "experts", "rope", "loader", "text", "grammar", "server", "gate", "metrics",
}  # fmt: skip
"""Areas that the list must cover; it may cover more."""

MUTATIONS = read_mutations()


def test_the_list_is_long_enough_and_covers_every_area() -> None:
    assert len(MUTATIONS) >= 80
    assert {mutation.area for mutation in MUTATIONS} >= AREAS
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []
    assert sum(mutation.is_slow for mutation in MUTATIONS) <= len(MUTATIONS) * 0.05, "the fast suite sees 95 %"


def problem_of(mutation: Mutation) -> str | None:
    """Why a fault cannot be put in, or None."""
    path = ROOT / mutation.file
    if not path.is_file():
        return f"{mutation.file} is gone"
    text = path.read_text()
    if text.count(mutation.old) != 1:
        return f"its old text occurs {text.count(mutation.old)} times in {mutation.file}"
    changed = text.replace(mutation.old, mutation.new)
    if changed == text:
        return "it changes nothing"
    if path.suffix == ".py":
        ast.parse(changed)
    files = [ROOT / "tests" / entry.split(" ")[0] for entry in mutation.tests]
    missing = [str(file) for file in files if not file.is_file()]
    twins = [str(file) for file in files if any(file.match(pattern) for pattern in TWINS)]
    if missing or twins or not files:
        return f"its tests are not there, or compare two implementations only: {missing + twins}"
    return None


def test_every_fault_can_be_put_in() -> None:
    problems = {mutation.name: problem for mutation in MUTATIONS if (problem := problem_of(mutation))}
    assert problems == {}, "follow the change in tests/mutations.toml"


def test_a_rotten_entry_is_seen() -> None:
    fine = MUTATIONS[0]
    assert problem_of(fine) is None
    for changes in (
        {"old": "no such text"}, {"old": "\n"}, {"file": "src/gone.py"}, {"new": fine.old}, {"tests": ("gone.py",)},
        {"tests": ()}, {"tests": ("kernels/test_conformance.py",)},
    ):  # fmt: skip
        values = {name: getattr(fine, name) for name in Mutation.__dataclass_fields__}
        assert problem_of(Mutation(**values | changes)) is not None, changes
