"""A check as one self-contained HTML file: verdict, rates with intervals, categories, lengths, differences."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from outrider.gate import statistics
from outrider.gate.check import CheckResult
from outrider.gate.plots import BASELINE, NOW, Bar, Series, bar_chart
from outrider.gate.report import line
from outrider.gate.sample import Sample
from outrider.gate.statistics import Ratio

_INTERVAL_TAIL = 0.025
"""Confidence of each plotted interval; the test uses its own, wider ones."""

_STYLE = """
:root { --paper: #ffffff; --ink: #1c2430; --line: #d8dee8; --good: #116329; --bad: #b3261e; --warn: #7a5b00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e7e6e1; --line: #3a4048; --good: #7ccf9b; --bad: #ff9c92; --warn: #e0b050; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--paper); color: var(--ink); overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; } .wide table { overflow-wrap: normal; }
table { border-collapse: collapse; }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
.pass { color: var(--good); } .fail { color: var(--bad); } .note { color: var(--warn); }
svg { width: 100%; min-width: 34rem; max-width: 46rem; height: auto; display: block; margin: 1rem 0; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg .title { font-weight: 600; font-size: 12px; }
.grid { stroke: var(--line); } .whisker { stroke: var(--ink); fill: none; stroke-width: 1.4; }
"""


def html(result: CheckResult) -> str:
    """Returns the HTML document."""
    verdict, settings = result.verdict, result.baseline.settings
    word, style = ("PASS", "pass") if verdict.passed else ("REGRESSION", "fail")
    drafter = settings.speculative_config.get("method", "its drafter")
    parts = [
        f"<h1>{escape(result.title)}</h1>",
        f'<p class="{style}"><strong>{word}</strong>: {escape(verdict.cause)}</p>',
        f"<p>{escape(settings.model)} with {escape(str(drafter))}, k = {settings.num_speculative_tokens}; "
        f"{verdict.num_requests} requests, at most {settings.max_tokens} tokens, temperature {settings.temperature:g}, "
        f"seed {settings.seed}. Compared with {escape(result.entry.name)}, recorded {result.entry.recorded}. "
        + (
            "Same platform: integers and digests must be equal.</p>"
            if verdict.is_exact
            else f"Rates within bounds, alarm level {verdict.alarm_level:.1%} over {len(verdict.tests)} tests.</p>"
        ),
        *(f'<p class="note">{escape(note)}</p>' for note in result.notes),
        "<h2>Rates</h2>",
        _rates_table(result),
        *(_wide(plot, name="Plot") for plot in plots(result)),
    ]
    if verdict.differences:
        items = "".join(f"<li>{escape(line(entry))}</li>" for entry in verdict.differences)
        parts += ["<h2>First difference of every request that differs</h2>", f"<ul>{items}</ul>"]
    parts += ["<h2>Platform</h2>", _facts({**result.now.key, **result.now.versions})]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(result.title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def plots(result: CheckResult) -> list[str]:
    """Plots of rates with intervals, acceptance length by category, accepted drafts per step."""
    runs = (("baseline", BASELINE, result.entry.samples), ("now", NOW, result.now.samples))
    rates = [(name, colour, statistics.ratios(samples)[:-1]) for name, colour, samples in runs]
    shown = [ratio.name for ratio in rates[0][2] if ratio.name in {other.name for other in rates[1][2]}]
    categories = list(dict.fromkeys(sample.category for sample in result.now.samples))
    charts = [
        bar_chart(
            "Rates, with 95 % intervals clustered by prompt",
            shown,
            [
                Series(name=name, colour=colour, bars=tuple(_bar(entry) for entry in found if entry.name in shown))
                for name, colour, found in rates
            ],
        ),
        bar_chart(
            "Mean acceptance length by category, with 95 % intervals",
            categories,
            [
                Series(
                    name=name,
                    colour=colour,
                    bars=tuple(
                        _bar(_length([sample for sample in samples if sample.category == category]))
                        for category in categories
                    ),
                )
                for name, colour, samples in runs
            ],
        ),
    ]
    if all(sample.accepted_by_step for _, _, samples in runs for sample in samples):
        counts = [Counter(step for sample in samples for step in sample.accepted_by_step) for _, _, samples in runs]
        lengths = range(max(max(count) for count in counts) + 1)
        charts.append(
            bar_chart(
                "Steps by number of accepted drafts (share of all steps)",
                [str(length) for length in lengths],
                [
                    Series(
                        name=name,
                        colour=colour,
                        bars=tuple(Bar(value=count[length] / count.total()) for length in lengths),
                    )
                    for (name, colour, _), count in zip(runs, counts, strict=True)
                ],
            )
        )
    return charts


def _length(samples: Sequence[Sample]) -> Ratio:
    return statistics.ratios(samples)[-1]


def _bar(ratio: Ratio) -> Bar:
    estimated = statistics.estimate(ratio)
    margin = estimated.margin(_INTERVAL_TAIL)
    if margin == float("inf"):
        return Bar(value=estimated.value)
    return Bar(value=estimated.value, low=estimated.value - margin, high=estimated.value + margin)


def _rates_table(result: CheckResult) -> str:
    """On the platform of the baseline counts decide, so the rates have no outcome there."""
    is_judged = not result.verdict.is_exact
    rows = []
    for test in result.verdict.tests:
        upper = f" to {test.upper_bound:.4f}" if test.upper_bound is not None else " or more"
        outcome = "ok" if test.passed else '<b class="fail">FAIL</b>'
        rows.append(
            f"<tr><td>{escape(test.name)}</td><td>{test.baseline:.4f}</td><td>{test.now:.4f}</td>"
            f"<td>{test.difference:+.4f}</td><td>{test.lower_bound:.4f}{upper}</td><td>{test.detectable_fall:.4f}</td>"
            + (f"<td>{outcome}</td>" if is_judged else "")
            + "</tr>"
        )
    table = (
        "<table><tr><th>rate</th><th>baseline</th><th>now</th><th>change</th><th>bounds</th>"
        f"<th>a fall seen in 4 of 5 checks</th>{'<th>result</th>' * is_judged}</tr>{''.join(rows)}</table>"
    )
    return _wide(table, name="Rates")


def _wide(content: str, *, name: str) -> str:
    """A box that scrolls sideways by itself where the screen is narrow, by keyboard too."""
    return f'<div class="wide" role="region" aria-label="{name}" tabindex="0">{content}</div>'


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"
