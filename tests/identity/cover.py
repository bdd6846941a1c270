"""A pairwise cover: every pair of values of two dimensions occurs together in at least one run."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any


def pairs_of(run: Mapping[str, Any]) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """The pairs that one run covers."""
    return set(itertools.combinations(sorted(run.items()), 2))


def pairwise(dimensions: Mapping[str, Sequence[Any]], *, seed: int, tries: int = 60) -> list[dict[str, Any]]:
    """Runs that cover every pair; each is the best of some random ones that hold a pair still missing."""
    rng = random.Random(seed)
    missing = {
        tuple(sorted(((a, x), (b, y))))
        for a, b in itertools.combinations(dimensions, 2)
        for x in dimensions[a]
        for y in dimensions[b]
    }
    runs: list[dict[str, Any]] = []
    while missing:
        wanted = dict(min(missing, key=repr))
        candidates = [
            {name: wanted.get(name, rng.choice(list(values))) for name, values in dimensions.items()}
            for _ in range(tries)
        ]
        best = max(candidates, key=lambda run: len(pairs_of(run) & missing))
        missing -= pairs_of(best)
        runs.append(best)
    return runs
