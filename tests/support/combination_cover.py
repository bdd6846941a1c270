"""Covers of a product of options: every two (or three) values of different dimensions occur together in some run."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any


def combinations_of(run: Mapping[str, Any], strength: int) -> set[tuple[tuple[str, Any], ...]]:
    """The combinations of `strength` values that one run covers."""
    return set(itertools.combinations(sorted(run.items()), strength))


def make_cover(
    dimensions: Mapping[str, Sequence[Any]], *, seed: int, strength: int = 2, tries: int = 60
) -> list[dict[str, Any]]:
    """Runs that cover every combination of `strength` values; each is the best of `tries` random runs that hold a
    missing one."""
    rng = random.Random(seed)
    missing = {
        combination
        for names in itertools.combinations(sorted(dimensions), strength)
        for combination in itertools.product(*([(name, value) for value in dimensions[name]] for name in names))
    }
    runs: list[dict[str, Any]] = []
    while missing:
        wanted = dict(min(missing, key=repr))
        candidates = [
            {name: wanted.get(name, rng.choice(list(values))) for name, values in dimensions.items()}
            for _ in range(tries)
        ]
        best = max(candidates, key=lambda run: len(combinations_of(run, strength) & missing))
        missing -= combinations_of(best, strength)
        runs.append(best)
    return runs
