"""Prints a check on one terminal screen, with rich. Makes no decisions."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outrider.gate.check import CheckResult
from outrider.gate.judge import Difference, Test

_SHOWN_DIFFERENCES = 6


def screen(result: CheckResult) -> RenderableType:
    """Prints the run, the rates with their bounds, the first differences and the verdict."""
    settings, verdict = result.baseline.settings, result.verdict
    num_prompts = len({sample.prompt for sample in result.entry.samples})
    head = Text.assemble(
        (f"{result.title}\n", "bold"),
        f"{settings.model} with {settings.speculative_config.get('method', 'its drafter')}, "
        f"k = {settings.num_speculative_tokens}; {num_prompts} prompts, {verdict.num_requests} requests, at most "
        f"{settings.max_tokens} tokens, temperature {settings.temperature:g}, seed {settings.seed}\n"
        f"here: {', '.join(f'{name} {value}' for name, value in result.now.key.items())}\n"
        f"baseline: {result.entry.name}, recorded {result.entry.recorded}; ",
        "integers and digests must be equal"
        if verdict.is_exact
        else f"rates within bounds, alarm level {verdict.alarm_level:.1%} over {len(verdict.tests)} tests, by prompt",
    )
    parts: list[RenderableType] = [head, rates(verdict.tests, is_exact=verdict.is_exact)]
    if verdict.differences:
        parts.append(differences(verdict.differences))
    parts += [Text(f"note: {note}", "yellow") for note in result.notes]
    word, style = ("PASS", "bold green") if verdict.passed else ("REGRESSION", "bold red")
    parts.append(Text(f"{word}: {verdict.cause}", style))
    return Group(*parts)


def rates(tests: Sequence[Test], *, is_exact: bool) -> Table:
    """Table of baseline and current rates; for judged rates also the bounds, their source, and the detectable fall."""
    table = Table(box=None)
    names = ("", "baseline", "now", "change", *(() if is_exact else ("bounds", "set by", "sees", "")))
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for test in tests:
        cells = [test.name, f"{test.baseline:.4f}", f"{test.now:.4f}", f"{test.difference:+.4f}"]
        if not is_exact:
            upper = f"{test.upper_bound:.3f}" if test.upper_bound is not None else ""
            cells += [
                f"{test.lower_bound:.3f} … {upper}",
                "noise" if test.margin > test.tolerance else "tolerance",
                f"{-test.detectable_fall:.3f}",
                "ok" if test.passed else "FAIL",
            ]
        table.add_row(*cells)
    return table


def differences(found: Sequence[Difference]) -> Text:
    """Lists the first few differences, one per line."""
    lines = [line(entry) for entry in found[:_SHOWN_DIFFERENCES]]
    if len(found) > _SHOWN_DIFFERENCES:
        lines.append(f"… and {len(found) - _SHOWN_DIFFERENCES} more requests differ")
    return Text("\n".join(lines))


def line(entry: Difference) -> str:
    """Describes the first difference of one request."""
    place = f", output token {entry.token}" if entry.token is not None else ""
    return f"prompt {entry.prompt}, turn {entry.turn}{place}: {entry.moved.value} moved, {entry.detail}"
