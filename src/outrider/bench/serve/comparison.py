"""Two saved results of `outrider bench serve`, figure by figure. Refuses results whose settings differ.

Knows the keys of the JSON file. One run on each side says nothing about the spread between runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.bench.serve.figures import METRICS
from outrider.bench.serve.setting import DECISIVE
from outrider.core.errors import ConfigError

_COUNTS = {
    "completed": "successful requests",
    "failed": "failed requests",
    "duration": "duration, s",
    "request_throughput": "requests/s",
    "request_goodput": "goodput, requests/s",
    "output_throughput": "output tokens/s",
    "total_token_throughput": "tokens/s, prompts included",
    "max_output_tokens_per_s": "output tokens in the best second",
}
_SPECULATION = {
    "spec_decode_acceptance_rate": "acceptance rate, %",
    "spec_decode_acceptance_length": "acceptance length",
}
_STATISTICS = ("mean", "median", "std")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of both runs; None where a run does not have it."""

    name: str
    first: float | None
    second: float | None

    @property
    def ratio(self) -> float | None:
        """Second divided by first."""
        if self.first is None or self.second is None or self.first == 0:
            return None
        return self.second / self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two runs with equal settings."""

    request_rate: float | str
    differs: Mapping[str, tuple[Any, Any]]
    """Settings that may differ and do, by key."""
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two results: a pair of runs, or one for each rate of a sweep."""

    names: tuple[str, str]
    pairs: Sequence[Pair]

    def markdown(self) -> Iterator[str]:
        """The lines of a table for each pair."""
        for pair in self.pairs:
            yield f"## {float(pair.request_rate):g} requests/s"
            yield ""
            for key, (first, second) in pair.differs.items():
                yield f"{key} differs: {json.dumps(first)}, {json.dumps(second)}"
                yield ""
            yield f"| | {self.names[0]} | {self.names[1]} | ratio |"
            yield "|---|---|---|---|"
            for row in pair.rows:
                yield f"| {row.name} | {_number(row.first)} | {_number(row.second)} | {_number(row.ratio)} |"
            yield ""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "names": list(self.names),
            "pairs": [
                {
                    "request_rate": pair.request_rate,
                    "differs": {key: list(values) for key, values in pair.differs.items()},
                    "figures": {
                        row.name: {"first": row.first, "second": row.second, "ratio": row.ratio} for row in pair.rows
                    },
                }
                for pair in self.pairs
            ],
        }

    def write(self, path: Path) -> None:
        """Writes the comparison as .json or .md. Raises ConfigError for another ending."""
        if path.suffix == ".json":
            path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        elif path.suffix == ".md":
            path.write_text("\n".join([f"# {self.names[0]} and {self.names[1]}", "", *self.markdown()]))
        else:
            raise ConfigError(f"--output={str(path)!r} must end in .md or .json. Rename it.")


def compare(first: Path, second: Path, *, may_differ: Sequence[str] = ()) -> Comparison:
    """Compares two saved results. `may_differ`: settings that are not required to be equal.

    Raises ConfigError if a file is not a result, or names every setting that differs.
    """
    for key in may_differ:
        if key not in DECISIVE:
            raise ConfigError(f"--may-differ {key!r} is not a setting. Known: {', '.join(DECISIVE)}.")
    runs = read_runs(first), read_runs(second)
    if len(runs[0]) != len(runs[1]):
        raise ConfigError(
            f"{first} has {len(runs[0])} runs and {second} has {len(runs[1])}. Measure the same request rates in both."
        )
    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    pairs = []
    for one, other in zip(*runs, strict=True):
        differs = {key: (one[key], other[key]) for key in DECISIVE if one[key] != other[key]}
        if refused := [key for key in differs if key not in may_differ]:
            listed = "; ".join(f"{key}: {_short(one[key])} and {_short(other[key])}" for key in refused)
            raise ConfigError(
                f"{first} and {second} are not comparable: they differ in {listed}. Measure with equal settings, or "
                f"accept the difference: {' '.join(f'--may-differ {key}' for key in refused)}."
            )
        rows = [Row(name=title, first=one.get(key), second=other.get(key)) for key, title in _figures(one, other)]
        pairs.append(Pair(request_rate=one["request_rate"], differs=differs, rows=rows))
    return Comparison(names=names, pairs=pairs)


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a result file, one or those of a sweep. Raises ConfigError if it is not such a file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a result of bench serve: {error}.") from error
    runs = content["runs"] if isinstance(content, dict) and isinstance(content.get("runs"), list) else [content]
    for run in runs or [None]:
        missing = [key for key in DECISIVE if key not in run] if isinstance(run, dict) else list(DECISIVE)
        if missing:
            raise ConfigError(
                f"{path} does not say with which settings it was measured: it has no {', '.join(missing)}. Results of "
                "`outrider bench serve --save-result` do. Measure again."
            )
    return runs


def _figures(*runs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys and titles of the figures that at least one run has."""
    titles = dict(_COUNTS)
    for name in METRICS:
        titles |= {f"{statistic}_{name}_ms": f"{statistic} {name.upper()}, ms" for statistic in _STATISTICS}
        percents = {
            key.removeprefix("p").removesuffix(f"_{name}_ms")
            for run in runs
            for key in run
            if key.startswith("p") and key.endswith(f"_{name}_ms")
        }
        titles |= {f"p{percent}_{name}_ms": f"P{percent} {name.upper()}, ms" for percent in sorted(percents, key=float)}
    for key, title in (titles | _SPECULATION).items():
        if any(run.get(key) is not None for run in runs):
            yield key, title


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
