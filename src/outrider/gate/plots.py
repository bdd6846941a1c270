"""Plots as inline SVG: bars with intervals, series side by side. Numbers in, markup out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

BASELINE, NOW = "#8a94a6", "#1f6feb"
"""Colours of the two series."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 240, 52, 44, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: a value and, if known, the interval around it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A colour, a name, and one bar per group."""

    name: str
    colour: str
    bars: tuple[Bar, ...]


def bar_chart(title: str, groups: Sequence[str], series: Sequence[Series], *, form: str = ".2f") -> str:
    """Groups of bars with intervals, from zero. `form` formats values."""
    top = max([bar.high if bar.high is not None else bar.value for entry in series for bar in entry.bars] + [1e-9])
    height, width = _HEIGHT - _BOTTOM - _TOP, (_WIDTH - _LEFT - 12) / max(len(groups), 1)

    def y(value: float) -> float:
        return _TOP + height * (1.0 - value / (1.08 * top))

    parts = [f'<text x="{_LEFT}" y="14" class="title">{escape(title)}</text>']
    for value in ticks(top):
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    bar_width = width * 0.76 / max(len(series), 1)
    for i_group, group in enumerate(groups):
        left = _LEFT + width * i_group + width * 0.12
        centre = _LEFT + width * (i_group + 0.5)
        parts.append(f'<text x="{centre:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(group)}</text>')
        for i_series, entry in enumerate(series):
            parts += _bar(entry.bars[i_group], entry, x=left + i_series * bar_width, width=bar_width, y=y, form=form)
    for i_series, entry in enumerate(series):
        x = _LEFT + 150 * i_series
        parts.append(f'<rect x="{x}" y="{_HEIGHT - 14}" width="10" height="10" fill="{entry.colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{_HEIGHT - 5}">{escape(entry.name)}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def ticks(top: float) -> list[float]:
    """Round numbers from 0 to `top` (positive), six at most."""
    power = 10.0 ** math.floor(math.log10(top / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if top / (power * factor) <= 5 + 1e-9)
    return [round(index * step, 12) for index in range(math.floor(top / step + 1e-9) + 1)]


def _bar(bar: Bar, series: Series, *, x: float, width: float, y: Callable[[float], float], form: str) -> list[str]:
    shown = f"{series.name}: {bar.value:{form}}"
    parts = [
        f'<rect x="{x:.1f}" y="{y(bar.value):.1f}" width="{width * 0.92:.1f}" height="{y(0.0) - y(bar.value):.1f}" '
        f'fill="{series.colour}"><title>{escape(shown)}</title></rect>'
    ]
    if bar.low is not None and bar.high is not None:
        left, foot = x + width * 0.46 - 5, y(max(bar.low, 0.0))
        parts.append(f'<path class="whisker" d="M{left:.1f} {y(bar.high):.1f}h10m-5 0V{foot:.1f}m-5 0h10"/>')
    return parts
