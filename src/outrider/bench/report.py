"""Figures as a table for a terminal and as JSON. Every report says whether the run was exact."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from outrider.bench.host import LIMIT, HostFigures
from outrider.bench.measure import Figures, Spread


def figures_table(figures: Figures, *, title: str, exactness: str) -> Table:
    """A table with one line per figure."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("requests", f"{figures.num_requests}, at most {figures.max_concurrency} at once")
    table.add_row("output tokens", f"{figures.num_tokens} in {figures.seconds:.3f} s")
    table.add_row("tokens/s", f"{figures.tokens_per_second:.1f}")
    if figures.plain_tokens_per_second is not None:
        gain = figures.tokens_per_second / figures.plain_tokens_per_second
        verdict = f"with drafts {gain:.2f} times as fast"
        if gain < 1:
            verdict += ": they cost more time than they save"
        table.add_row("  drafts off", f"{figures.plain_tokens_per_second:.1f} tokens/s; {verdict}")
    if figures.decode_tokens_per_second is not None:
        table.add_row("decode tokens/s", f"{figures.decode_tokens_per_second:.1f}")
    table.add_row("TTFT, ms", _spread(figures.ttft))
    table.add_row("ITL, ms", _spread(figures.itl))
    if figures.tpot_ms is not None:
        table.add_row("TPOT, ms", f"mean {figures.tpot_ms:.3f}")
    stats = figures.stats
    if stats.num_drafts:
        rates = " / ".join(f"{rate:.3f}" for rate in stats.acceptance_rate_per_pos)
        kind = ", synthetic" if stats.is_synthetic else ""
        table.add_row("acceptance length", f"{stats.mean_acceptance_length:.3f}, by position {rates}{kind}")
    table.add_row(
        "step, ms", f"{figures.step_ms:.3f}; its parts, in a profiled pass of {figures.split.num_steps} steps:"
    )
    for part, milliseconds in figures.split.ms.items():
        if part != "drafter" or figures.plain_tokens_per_second is not None:
            table.add_row(f"  {part}", f"{milliseconds:.3f}")
    limit = figures.limit
    if limit is not None:
        share = f"{limit.share:.1%} of the limit: " if limit.share is not None else ""
        table.add_row("bandwidth", f"{share}{limit.bytes_per_step / 1e9:.3f} GB a step; {limit.note}")
    table.add_row("exact", exactness)
    return table


def figures_dict(figures: Figures) -> dict[str, Any]:
    """All figures as plain values, with acceptance length and rates."""
    values = asdict(figures)
    values["stats"]["mean_acceptance_length"] = figures.stats.mean_acceptance_length
    values["stats"]["acceptance_rate_per_pos"] = figures.stats.acceptance_rate_per_pos
    return values


def host_table(rows: list[HostFigures]) -> Table:
    """A table of microseconds per request and step."""
    table = Table(title=f"Host, µs per request and step (limit {LIMIT:g} from 64 requests on)", title_justify="left")
    for name in ("requests", "drafts", "plan", "stage", "read", "settle", "text (in settle)", "best", "median"):
        table.add_column(name, justify="right")
    for figures in rows:
        values = (figures.plan, figures.stage, figures.read, figures.settle, figures.text, figures.total)
        table.add_row(
            str(figures.num_rows),
            str(figures.num_drafts),
            *(f"{value:.2f}" for value in values),
            f"{figures.median:.2f}",
        )
    return table


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes one JSON object, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "none"
    return f"mean {spread.mean:.3f}, median {spread.median:.3f}, p99 {spread.p99:.3f}"
