"""The measured runs of one command: one, or one for each request rate of a sweep. Their table and their JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from outrider.bench.serve.figures import Figures
from outrider.bench.serve.report import result
from outrider.bench.serve.run import Run
from outrider.bench.serve.setting import Setting

SHOWN = ("ttft", "tpot", "e2el")
"""Latencies in the table and the picture of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run with its settings and its figures."""

    setting: Setting
    figures: Figures
    run: Run


def sweep_lines(runs: Sequence[Measured]) -> Iterator[str]:
    """A Markdown table with a row for each rate: medians and the highest percentile of the run."""
    percents = [percent for latency in runs[0].figures.latencies.values() for percent in latency.percentiles]
    highest = max(percents, default=99.0)
    has_goodput = bool(runs[0].setting.goodput)
    columns = ["req/s sent", "req/s answered", *(["goodput req/s"] if has_goodput else []), "output tok/s", "failed"]
    columns += [f"{name.upper()} P50 / P{highest:g} ms" for name in SHOWN]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for measured in runs:
        figures = measured.figures
        cells = [f"{measured.setting.request_rate:g}", f"{figures.request_throughput:.2f}"]
        if figures.request_goodput is not None:
            cells.append(f"{figures.request_goodput:.2f}")
        cells += [f"{figures.output_throughput:.1f}", str(figures.failed)]
        for name in SHOWN:
            latency = figures.latencies.get(name)
            cells.append(f"{latency.median:.2f} / {latency.percentiles[highest]:.2f}" if latency is not None else "–")
        yield f"| {' | '.join(cells)} |"


def saved(runs: Sequence[Measured], *, is_detailed: bool) -> dict[str, Any]:
    """The content of the JSON file: the run's own, or a list of runs in the order of a sweep."""
    contents = [
        result(measured.setting, measured.figures, measured.run.counters, measured.run.answers, is_detailed=is_detailed)
        for measured in runs
    ]
    return contents[0] if len(contents) == 1 else {"runs": contents}


def file_stem(runs: Sequence[Measured]) -> str:
    """Name of the file of the results, without its ending."""
    first = runs[0]
    rates = "-".join(f"{measured.setting.request_rate:g}" for measured in runs)
    load = first.setting.load if len(runs) == 1 else f"sweep{rates}qps"
    return f"outrider-{load}-{PurePath(first.run.model).name}-{first.setting.date}"
