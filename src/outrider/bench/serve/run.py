"""The outcome of a run on a server: its answers, and the server's own counts. Plain data."""

from dataclasses import dataclass

from outrider.bench.serve.answer import Answer
from outrider.bench.serve.counters import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All answers in the order of their requests, and the server's counters during the run."""

    model: str
    answers: list[Answer]
    seconds: float
    """Time from the start to the end of the last answer."""
    counters: Counters
