"""One check: compares a measurement with a baseline and returns the result that the reports show. Runs no model."""

from dataclasses import dataclass

from outrider.gate.baseline import Baseline, PlatformEntry
from outrider.gate.judge import Verdict, judge
from outrider.gate.sample import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The compared runs and the verdict."""

    title: str
    baseline: Baseline
    entry: PlatformEntry
    now: Measurement
    verdict: Verdict
    notes: tuple[str, ...]
    """Caveats for the reader: fallbacks, limits, what was not tested."""


def check(baseline: Baseline, now: Measurement, *, title: str) -> CheckResult:
    """Judge a measurement by the entry for its platform. Raises GateError if they cannot be compared."""
    entry, fallback = baseline.choose(now.key)
    is_exact = now.is_engine and not fallback
    settings = baseline.settings
    verdict = judge(
        now,
        entry.samples,
        is_exact=is_exact,
        tolerance=settings.tolerance if entry.tolerance is None else entry.tolerance,
        alarm_level=settings.alarm_level,
    )
    notes = [fallback] if fallback else []
    if not now.is_engine:
        notes.append("counts come from a server's /metrics, which may not be exact: rates are judged, not integers")
    if not now.samples[0].num_accepted_tokens_per_pos:
        notes.append("the server does not report rates per position: only the total is judged")
    if not is_exact:
        same_text = sum(a.tokens_digest == b.tokens_digest for a, b in zip(now.samples, entry.samples, strict=True))
        notes.append(f"the text is the same as in the baseline in {same_text} of {len(entry.samples)} requests")
    return CheckResult(title=title, baseline=baseline, entry=entry, now=now, verdict=verdict, notes=tuple(notes))
