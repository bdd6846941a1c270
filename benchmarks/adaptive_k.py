"""Adaptive number of drafts against every fixed one, by simulation: the policy itself, on step times of a GPU.

    python benchmarks/adaptive_k.py [--step-times FILE.json] [--seeds 1] [--most 3 5] [--output FILE.md]

Requests decode in steps whose length comes from a table (ms by k and rows, interpolated) and is noisy: 2 % of
lognormal noise, and one step in 200 takes five times as long. A step that verifies v drafts and makes p takes the mean
of the steady steps of v and p. Each draft is accepted with its profile's probability. As in the engine, the number
of drafts of a step is chosen one step before the last results are known. A fixed k gets the same step times
and the same random numbers (seeded by step and request). No model is run.

A trace is a list of phases: (share of its steps, rows, profiles of the rows). In "requests end" a request lives for 128
tokens, and another takes its place.
"""

import argparse
import datetime
import json
import math
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outrider.core.config import SpeculativeConfig
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.scheduler.draft_policy import AdaptiveDrafts, DraftPolicy, FixedDrafts
from outrider.scheduler.request_state import RequestState

ROW_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
PROFILES = {
    "good": (0.9, 0.8, 0.7, 0.62, 0.55),
    "usual": (0.75, 0.55, 0.40, 0.29, 0.21),
    "bad": (0.3, 0.1, 0.05, 0.02, 0.01),
}
"""Chance that drafts 1 … i are all accepted."""
LOADS = (1, 4, 16, 64, 256)
STEP_TIMES = Path(__file__).parent / "results" / "step-times.json"
"""{"plain": {rows: ms}, "drafting": {k: {rows: ms}}, "start": {k: {rows: ms}}}: an engine without a drafter, one that
may draft, and what that one measured at its start. k that were not measured lie on a line between their neighbours."""
PLAIN = -1
"""The k of the engine without a drafter."""

_WORD = (1 << 64) - 1
Table = dict[int, dict[int, float]]
Phase = tuple[float, int, tuple[str, ...]]


def read_tables(path: Path) -> tuple[Table, Table]:
    """ms by k and rows: the true times of steps, and those that the engine measured at its start."""
    values = json.loads(path.read_text())
    tables = [{**values["drafting"], PLAIN: values["plain"]}, values["start"]]
    steps, start = [
        {int(k): {int(rows): float(ms) for rows, ms in of_k.items()} for k, of_k in table.items()} for table in tables
    ]
    return steps, start


def seconds_of(table: Table, num_rows: int, num_drafts: int) -> float:
    """A steady step: linear in rows between measured ones, and in k."""
    low = max(k for k in table if k <= num_drafts)
    high = min(k for k in table if k >= num_drafts)
    if low != high:
        share = (num_drafts - low) / (high - low)
        return (1 - share) * seconds_of(table, num_rows, low) + share * seconds_of(table, num_rows, high)
    points = sorted(table[low].items())
    below = max((point for point in points if point[0] <= num_rows), default=points[0])
    above = min((point for point in points if point[0] >= num_rows), default=points[-1])
    if below[0] == above[0]:
        return below[1] / 1e3
    share = (num_rows - below[0]) / (above[0] - below[0])
    return (below[1] + share * (above[1] - below[1])) / 1e3


@dataclass(frozen=True, slots=True)
class Trace:
    """A load to decode. `max_tokens`: length of one request's output; None: requests never end."""

    name: str
    phases: tuple[Phase, ...]
    num_tokens: int
    max_tokens: int | None = None
    is_mixed: bool = False


def traces() -> list[Trace]:
    """Stationary traces at every load, then changing ones."""
    stationary = [
        Trace(f"{name}, {rows} rows", ((1.0, rows, (name,)),), 3000 * rows) for name in PROFILES for rows in LOADS
    ]
    every = tuple(PROFILES)
    stationary += [
        Trace(f"requests of all three, {rows} rows", ((1.0, rows, every),), 3000 * rows) for rows in (3, 24, 256)
    ]
    stationary += [
        Trace(f"all three, requests end, {rows} rows", ((1.0, rows, every),), 3000 * rows, max_tokens=128)
        for rows in (4, 64)
    ]
    waves = (1, 256, 8, 128, 2, 64, 256, 1, 192, 4)
    return [
        *stationary,
        Trace(
            "load 1 … 256, usual",
            tuple((0.1, rows, ("usual",)) for rows in waves), 400_000, max_tokens=256, is_mixed=True
        ),
        Trace(
            "load 1 … 256, all three",
            tuple((0.1, rows, every) for rows in waves), 400_000, max_tokens=256, is_mixed=True
        ),
        Trace(
            "32 rows, text turns good and bad", tuple((0.1, 32, (name,)) for name in ("good", "bad") * 5), 200_000,
            max_tokens=256, is_mixed=True,
        ),
    ]  # fmt: skip


class Simulation:
    """One policy on one trace."""

    def __init__(self, trace: Trace, table: Table, policy: DraftPolicy, seed: int) -> None:
        self._trace, self._table, self._policy, self._seed = trace, table, policy, seed
        self._num_made = 0
        self._profile_of: dict[int, tuple[float, ...]] = {}

    def run(self) -> tuple[float, dict[int, int]]:
        """Tokens per second, and steps by number of drafts."""
        seconds = 0.0
        tokens = 0
        used: dict[int, int] = {}
        requests: list[RequestState] = []
        unseen: deque[tuple[list[RequestState], list[int], int, int, float]] = deque()
        num_drafts, num_step = 0, 0
        ends = [sum(phase[0] for phase in self._trace.phases[: i + 1]) for i in range(len(self._trace.phases))]
        seconds_in_phase = self._phase_seconds()
        while True:
            place = next((i for i, end in enumerate(ends) if seconds < end * seconds_in_phase - 1e-9), None)
            if place is None:
                return tokens / seconds, used
            requests = self._crowd(requests, self._trace.phases[place])
            num_proposals = self._policy.choose(requests)
            rng = random.Random(self._seed * 1_000_003 + num_step)
            took = self._took(rng, len(requests), num_drafts, num_proposals)
            accepted = [self._accepted(request, num_drafts) for request in requests]
            unseen.append((requests, accepted, num_drafts, num_proposals, took))
            if len(unseen) > 1:
                self._tell(*unseen.popleft())
            seconds += took
            tokens += len(requests) + sum(accepted)
            used[num_drafts] = used.get(num_drafts, 0) + 1
            for request, count in zip(requests, accepted, strict=True):
                request.num_scheduled_tokens += 1 + count
            num_drafts, num_step = num_proposals, num_step + 1

    def _phase_seconds(self) -> float:
        """The trace's length: as long as its tokens take without drafts, at its mean load."""
        rate = sum(share * rows / seconds_of(self._table, rows, PLAIN) for share, rows, _ in self._trace.phases)
        return self._trace.num_tokens / rate

    def _crowd(self, requests: Sequence[RequestState], phase: Phase) -> list[RequestState]:
        """The requests that continue, and new ones for the rest of the rows."""
        _, num_rows, profiles = phase
        most = self._trace.max_tokens
        kept = [request for request in requests if most is None or request.num_scheduled_tokens < most][:num_rows]
        kept = [request for request in kept if self._name_of(request) in profiles]
        while len(kept) < num_rows:
            kept.append(self._new(profiles[self._num_made % len(profiles)]))
        return kept

    def _new(self, profile: str) -> RequestState:
        self._num_made += 1
        request = Request(
            request_id=profile, prompt_token_ids=(1,), params=SamplingParams(), seed=self._num_made, eos_token_ids=(),
            max_total_tokens=1 << 20,
        )  # fmt: skip
        return RequestState(request=request)

    def _name_of(self, request: RequestState) -> str:
        return request.request_id

    def _accepted(self, request: RequestState, num_drafts: int) -> int:
        luck = _luck(request.request.seed, request.num_scheduled_tokens, self._seed)
        return sum(luck < chance for chance in PROFILES[request.request_id][:num_drafts])

    def _took(self, rng: random.Random, num_rows: int, num_drafts: int, num_proposals: int) -> float:
        rows = next(size for size in ROW_BUCKETS if size >= num_rows)
        count = max(num_drafts, num_proposals)
        if count == 0 and isinstance(self._policy, FixedDrafts):
            count = PLAIN
        noise = math.exp(rng.gauss(0.0, 0.02)) * (5.0 if rng.random() < 0.005 else 1.0)
        return seconds_of(self._table, rows, count) * noise

    def _tell(
        self, requests: list[RequestState], accepted: list[int], num_drafts: int, num_proposals: int, seconds: float
    ) -> None:
        self._policy.see_step(
            num_rows=len(requests), num_drafts=num_drafts, num_proposals=num_proposals, seconds=seconds
        )
        for request, count in zip(requests, accepted, strict=True):
            self._policy.see_row(request, num_drafts=num_drafts, num_accepted=count)
            request.speculation.num_drafts += num_drafts > 0


def _luck(request: int, place: int, seed: int) -> float:
    """In [0, 1): splitmix64 of its arguments."""
    word = (request * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + seed * 0x8CB92BA72F3D8DD7) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return (word ^ (word >> 31)) / 2.0**64


def widths_of(most: int) -> tuple[int, ...]:
    return SpeculativeConfig(method="eagle3", num_speculative_tokens=most, adaptive=True).draft_widths


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tokens per second of one trace, means over seeds; `worst`: of the ratio to the best fixed k, over seeds."""

    trace: Trace
    fixed: list[float]
    adaptive: float
    worst: float
    used: dict[int, int]

    @property
    def best(self) -> int:
        return max(range(len(self.fixed)), key=self.fixed.__getitem__)

    @property
    def ratio(self) -> float:
        return self.adaptive / self.fixed[self.best]


def compare(trace: Trace, table: Table, start: Table, *, most: int, seeds: Sequence[int]) -> Comparison:
    """All fixed numbers 0 … most and the adaptive one."""
    fixed: list[list[float]] = []
    adaptive: list[float] = []
    used: dict[int, int] = {}
    for seed in seeds:
        fixed.append([Simulation(trace, table, FixedDrafts(k), seed).run()[0] for k in range(most + 1)])
        known = {(rows, k): seconds_of(start, rows, k) for rows in ROW_BUCKETS for k in widths_of(most)}
        policy = AdaptiveDrafts(widths_of(most), row_buckets=ROW_BUCKETS, known=known)
        rate, steps = Simulation(trace, table, policy, seed).run()
        adaptive.append(rate)
        for width, count in steps.items():
            used[width] = used.get(width, 0) + count
    means = [statistics.mean(rates) for rates in zip(*fixed, strict=True)]
    worst = min(ours / max(theirs) for ours, theirs in zip(adaptive, fixed, strict=True))
    return Comparison(trace, means, statistics.mean(adaptive), worst, used)


def report(comparisons: Sequence[Comparison], *, most: int) -> str:
    """The results as a Markdown table."""
    heads = [f"k = {k}" for k in range(most + 1)]
    lines = [
        f"| trace | {' | '.join(heads)} | adaptive | to the best fixed | worst seed | steps by number of drafts |",
        "|---" * (most + 6) + "|",
    ]
    for found in comparisons:
        cells = [f"**{rate:.0f}**" if k == found.best else f"{rate:.0f}" for k, rate in enumerate(found.fixed)]
        total = sum(found.used.values())
        used = ", ".join(f"{width}: {100 * count / total:.0f} %" for width, count in sorted(found.used.items()))
        lines.append(
            f"| {found.trace.name} | {' | '.join(cells)} | {found.adaptive:.0f} | {found.ratio:.3f} | {found.worst:.3f}"
            f" | {used} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-times", type=Path, default=STEP_TIMES, help="JSON of benchmarks.step_times")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--most", type=int, nargs="+", default=[3, 5], help="k: maximum number of drafts of a step")
    parser.add_argument("--only", default="", help="run only traces whose name contains this")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    table, start = read_tables(arguments.step_times)
    parts = []
    for most in arguments.most:
        chosen = [trace for trace in traces() if arguments.only in trace.name]
        found = [compare(trace, table, start, most=most, seeds=range(arguments.seeds)) for trace in chosen]
        still = [one.worst for one in found if not one.trace.is_mixed]
        mixed = [one.worst for one in found if one.trace.is_mixed]
        parts.append(f"## At most {most} drafts\n\n{report(found, most=most)}\n")
        if still:
            parts.append(f"Stationary: at worst {100 * (min(still) - 1):+.1f} % to the best fixed k.")
        if mixed:
            parts.append(f"Changing: at worst {100 * (min(mixed) - 1):+.1f} % to the best fixed k.\n")
    text = (
        f"# Adaptive number of drafts\n\n{datetime.date.today()}. Simulation (`benchmarks/adaptive_k.py`, which says "
        f"how); step times: {arguments.step_times.name}; {arguments.seeds} seed(s). "
        "Tokens per second, means over seeds; the best fixed k in bold.\n\n" + "\n".join(parts)
    )
    print(text)
    if arguments.output:
        Path(arguments.output).write_text(text)


if __name__ == "__main__":
    main()
