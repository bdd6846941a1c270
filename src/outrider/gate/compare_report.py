"""Prints a comparison on one terminal screen, with rich. Makes no decisions."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outrider.gate.compare import CONFIDENCE, Candidate, Comparison, Contrast, best_by_speed


def candidates_table(candidates: Sequence[Candidate]) -> RenderableType:
    """Table of the candidates with their rates and tokens per cost; the best is marked."""
    names = ("", "acceptance length", "rates by position", "tokens per step", "cost ratio", "tokens per cost")
    table = _table(names)
    best = best_by_speed(candidates)
    for candidate in candidates:
        stats = candidate.measurement.stats
        table.add_row(
            candidate.name + (" ← best" if candidate is best and len(candidates) > 1 else ""),
            f"{stats.mean_acceptance_length:.3f}",
            " ".join(f"{rate:.3f}" for rate in stats.acceptance_rate_per_pos),
            f"{candidate.tokens_per_step:.3f}",
            f"{candidate.cost_ratio:g}",
            f"{candidate.speed:.3f}",
        )
    return table


def comparison_text(comparison: Comparison) -> RenderableType:
    """Report of one pair: the better one, the difference, its interval, and where it comes from."""
    a, b = comparison.a.name, comparison.b.name
    table = _table(("", a, b, "difference", f"{CONFIDENCE:.0%} intervals", "better"))
    _add(table, [comparison.speed], "tokens per cost, ", a, b)
    _add(table, comparison.categories, "tokens per step, ", a, b)
    _add(table, comparison.positions, "rate of ", a, b)
    _add(table, comparison.places, "drafted share, ", a, b)
    drafted = comparison.drafted
    num_tokens = drafted.total()
    line = (
        f"of {num_tokens} output tokens, the same for both: drafted by both {drafted[True, True]}, only by {a} "
        f"{drafted[True, False]}, only by {b} {drafted[False, True]}, by none {drafted[False, False]}"
    )
    return Group(table, Text(line), Text(verdict(comparison), "bold"))


def _table(names: Sequence[str]) -> Table:
    table = Table(box=None)
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def verdict(comparison: Comparison) -> str:
    """The conclusion in one sentence."""
    speed = comparison.speed
    names = {"a": comparison.a.name, "b": comparison.b.name}
    p_value = f"p = {speed.p_value:.2g}, paired by prompt"
    if not speed.better:
        # the intervals of a report hold together, so that one p-value below 0.05 shows nothing yet
        p_value = f"p = {speed.p_value:.2g} for this difference alone; the intervals of a report hold together"
        return (
            f"no difference shown: {names['b']} gives {speed.difference:+.3f} ± {speed.margin:.3f} tokens per cost "
            f"against {names['a']} ({p_value})"
        )
    worse = "b" if speed.better == "a" else "a"
    share = abs(speed.difference) / (speed.a if worse == "a" else speed.b)
    return (
        f"{names[speed.better]} is better: {abs(speed.difference):.3f} ± {speed.margin:.3f} tokens per cost, "
        f"{share:.1%} more than {names[worse]} ({p_value})"
    )


def _add(table: Table, contrasts: Sequence[Contrast], what: str, a: str, b: str) -> None:
    for contrast in contrasts:
        low, high = contrast.difference - contrast.margin, contrast.difference + contrast.margin
        table.add_row(
            what + contrast.where,
            f"{contrast.a:.3f}",
            f"{contrast.b:.3f}",
            f"{contrast.difference:+.3f}",
            f"{low:+.3f} … {high:+.3f}",
            {"a": a, "b": b, "": "not shown"}[contrast.better],
        )
