"""Draws a run (distributions of latencies, tokens over time, acceptance by position) or a sweep of rates. Needs
matplotlib.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from outrider.bench.serve.answer import Answer
from outrider.bench.serve.counters import Counters
from outrider.bench.serve.figures import METRICS, tokens_by_second, values_of
from outrider.bench.serve.sweep import SHOWN, Measured

_COLOUR, _OTHER = "#1f6feb", "#8a94a6"


def draw(path: Path, runs: Sequence[Measured]) -> None:
    """Writes the picture of a run, or of a sweep; the ending of `path` decides its format."""
    first = runs[0]
    if len(runs) == 1:
        plot(path, first.run.answers, first.run.counters, title=f"{first.run.model}, {first.setting.load}")
    else:
        plot_sweep(path, runs, title=f"{first.run.model}, {first.setting.num_prompts} requests at each rate")


def plot(path: Path, answers: Sequence[Answer], counters: Counters, *, title: str) -> None:
    """Writes the picture; the ending of `path` decides its format."""
    good = [answer for answer in answers if answer.error is None]
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 3)
    for place, name in zip(axes.flat, METRICS, strict=False):
        _distribution(place, sorted(value * 1e3 for value in values_of(good, name)), title=METRICS[name])
    _over_time(axes[1][1], tokens_by_second(good))
    _acceptance(axes[1][2], counters)
    figure.savefig(path, dpi=120)


def _distribution(axes: Axes, ranked: Sequence[float], *, title: str) -> None:
    """Draws the cumulative share of values."""
    axes.set(title=title, xlabel="ms", ylabel="share", ylim=(0, 1.02))
    if ranked:
        shares = [(index + 1) / len(ranked) for index in range(len(ranked))]
        axes.step([ranked[0], *ranked], [0.0, *shares], where="post", color=_COLOUR)
    axes.set_xlim(left=0)


def _over_time(axes: Axes, by_second: Sequence[float]) -> None:
    axes.bar(range(len(by_second)), by_second, width=1.0, align="edge", color=_COLOUR)
    axes.set(title="Output tokens by second", xlabel="s", ylabel="tokens")


def _acceptance(axes: Axes, counters: Counters) -> None:
    rates = counters.acceptance_rate_per_pos
    axes.set(title="Acceptance by position", xlabel="position", ylabel="share of drafts", ylim=(0, 1.02))
    if rates:
        axes.bar([str(position) for position in range(len(rates))], rates, color=_COLOUR)
    else:
        axes.text(0.5, 0.5, "not counted by the server", ha="center", color=_OTHER, transform=axes.transAxes)


def plot_sweep(path: Path, runs: Sequence[Measured], *, title: str) -> None:
    """Writes the picture of a sweep: latencies, tokens and answered requests by the rate of the requests."""
    ranked = sorted(runs, key=lambda measured: measured.setting.request_rate)
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 3)
    rates = [measured.setting.request_rate for measured in ranked]
    for place, name in zip(axes.flat, SHOWN, strict=False):
        _latency_by_rate(place, ranked, name)
    _by_rate(axes[1][0], rates, {"output tokens": [run.figures.output_throughput for run in ranked]})
    axes[1][0].set(title="Output token throughput", ylabel="tokens/s")
    answered = {"answered": [run.figures.request_throughput for run in ranked]}
    if all(run.figures.request_goodput is not None for run in ranked):
        limits = ", ".join(f"{name} {limit:g} ms" for name, limit in ranked[0].setting.goodput.items())
        answered[f"good: {limits}"] = [run.figures.request_goodput or 0.0 for run in ranked]
    _by_rate(axes[1][1], rates, answered)
    axes[1][1].set(title="Requests", ylabel="requests/s")
    accepted = [run.run.counters.acceptance_length for run in ranked]
    _by_rate(axes[1][2], rates, {"acceptance length": [math.nan if value is None else value for value in accepted]})
    axes[1][2].set(title="Acceptance length", ylabel="tokens per step with drafts")
    figure.savefig(path, dpi=120)


def _latency_by_rate(axes: Axes, ranked: Sequence[Measured], name: str) -> None:
    """Draws median and highest percentile of a latency, and its limit."""
    found = [measured.figures.latencies.get(name) for measured in ranked]
    series = {"P50": [math.nan if latency is None else latency.median for latency in found]}
    highest = max(
        (percent for latency in found if latency is not None for percent in latency.percentiles), default=None
    )
    if highest is not None:
        series[f"P{highest:g}"] = [math.nan if latency is None else latency.percentiles[highest] for latency in found]
    _by_rate(axes, [measured.setting.request_rate for measured in ranked], series)
    limit = ranked[0].setting.goodput.get(name)
    if limit is not None:
        axes.axhline(limit, color=_OTHER, linestyle=":", label=f"limit {limit:g} ms")
        axes.legend()
    axes.set(title=METRICS[name], ylabel="ms")


def places_of(rates: Sequence[float]) -> list[float]:
    """Places of ascending rates on the axis: an infinite rate is a quarter to the right of the highest other."""
    finite = [rate for rate in rates if rate != math.inf]
    return [*finite, *([1.25 * finite[-1]] if len(finite) < len(rates) else [])]


def _by_rate(axes: Axes, rates: Sequence[float], series: Mapping[str, Sequence[float]]) -> None:
    """Draws lines over the rates."""
    places = places_of(rates)
    for (label, values), colour, style in zip(series.items(), (_COLOUR, _OTHER), ("-", "--"), strict=False):
        axes.plot(places, values, style, marker="o", color=colour, label=label)
    axes.margins(y=0.1)
    axes.set_xticks(places, [f"{rate:g}" for rate in rates])
    axes.set(xlabel="requests/s sent")
    axes.set_ylim(bottom=0)
    axes.legend()
