"""Draws a run: distributions of latencies, tokens over time, acceptance by position. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from outrider.bench.serve.answer import Answer
from outrider.bench.serve.counters import Counters
from outrider.bench.serve.figures import METRICS, tokens_by_second, values_of

_COLOUR, _OTHER = "#1f6feb", "#8a94a6"


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
