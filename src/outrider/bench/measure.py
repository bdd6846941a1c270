"""Measurements of `bench latency` and `bench throughput`, and the figures derived from them.

Timed runs contain nothing but the engine's own work; the split of a step is measured in a separate run.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from outrider.bench.limits import Limit, measure_limit
from outrider.bench.split import Split, measure_split
from outrider.bench.timeline import Run, run
from outrider.bench.workload import Workload
from outrider.core.outputs import SpeculationStats
from outrider.engine.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, median and 99th percentile, in milliseconds."""

    mean: float
    median: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Spread | None":
        """The spread of some times in seconds; None if there are none."""
        if not seconds:
            return None
        ranked = sorted(seconds)
        p99 = ranked[min(len(ranked) - 1, -(-99 * len(ranked) // 100) - 1)]  # nearest rank
        return Spread(mean=statistics.mean(ranked) * 1e3, median=statistics.median(ranked) * 1e3, p99=p99 * 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Results of a benchmark. Times are on the host's clock."""

    num_requests: int
    max_concurrency: int
    num_tokens: int
    """Output tokens of one run."""
    seconds: float
    """Time of one run; the median of several."""
    tokens_per_second: float
    plain_tokens_per_second: float | None
    """Output tokens of a run with drafts switched off for every request, per second; None without a drafter."""
    decode_tokens_per_second: float | None
    """(tokens − requests) / (time of the run − time of the same run with one token each); median."""
    step_ms: float
    """Mean time of a decoding step, or of all steps if decoding was not measured apart."""
    ttft: Spread | None
    """Time from submission to the first token."""
    itl: Spread | None
    """Time between deliveries of one request, each of one token or more."""
    tpot_ms: float | None
    """(time of the last token − time of the first) / (tokens − 1), mean over requests."""
    stats: SpeculationStats
    split: Split
    limit: Limit | None
    """Bandwidth limit of a decoding step; None if decoding was not measured apart."""


def measure_latency(
    engine: Engine, workload: Workload, *, num_iters: int, num_iters_warmup: int, read_bandwidth: float | None
) -> Figures:
    """Runs all requests at once, `num_iters` times with one output token and with all, after the warm-up runs."""
    one_token = replace(workload, params=[replace(params, max_tokens=1) for params in workload.params])
    for _ in range(num_iters_warmup):
        run(engine, one_token, notes_deliveries=False)
        run(engine, workload, notes_deliveries=False)
    firsts, wholes = [], []
    for _ in range(num_iters):
        firsts.append(run(engine, one_token, notes_deliveries=False))
        wholes.append(run(engine, workload, notes_deliveries=False))
    timed = run(engine, workload, notes_deliveries=True)
    num_requests = len(workload.prompts)
    decode_seconds = [whole.seconds - first.seconds for first, whole in zip(firsts, wholes, strict=True)]
    step_seconds = [
        seconds / max(whole.num_steps - first.num_steps, 1)
        for seconds, first, whole in zip(decode_seconds, firsts, wholes, strict=True)
    ]
    step = statistics.median(step_seconds)
    lengths = [len(output.prompt_token_ids) + len(output.outputs[0].token_ids) / 2 for output in wholes[0].outputs]
    has_decoded = wholes[0].num_tokens > num_requests
    rates = [(whole.num_tokens - num_requests) / seconds for whole, seconds in zip(wholes, decode_seconds, strict=True)]
    return _figures(
        workload,
        wholes,
        timed,
        engine=engine,
        decode_tokens_per_second=statistics.median(rates) if has_decoded else None,
        step_ms=step * 1e3,
        limit=measure_limit(
            engine,
            num_requests=num_requests,
            mean_length=statistics.mean(lengths),
            step_seconds=step,
            read_bandwidth=read_bandwidth,
        )
        if has_decoded
        else None,
    )


def measure_throughput(engine: Engine, workload: Workload) -> Figures:
    """Runs all requests once, at most `max_concurrency` at a time, and notes the time of every delivery.

    Steps mix prompts and decoding, so there is no decoding step to compare with the bandwidth limit."""
    warm_up = replace(workload, prompts=workload.prompts[:1], params=[replace(workload.params[0], max_tokens=2)])
    run(engine, warm_up, notes_deliveries=False)
    timed = run(engine, workload, notes_deliveries=True)
    return _figures(
        workload,
        [timed],
        timed,
        engine=engine,
        decode_tokens_per_second=None,
        step_ms=timed.seconds / timed.num_steps * 1e3,
        limit=None,
    )


def _plain_rate(engine: Engine, workload: Workload) -> float | None:
    """Output tokens per second of the workload without drafts, in one run."""
    if engine.worker.drafter is None:
        return None
    plain = replace(workload, params=[replace(params, num_speculative_tokens=0) for params in workload.params])
    timed = run(engine, plain, notes_deliveries=False)
    return timed.num_tokens / timed.seconds


def _figures(workload: Workload, runs: list[Run], timed: Run, *, engine: Engine, **given: Any) -> Figures:
    stats = SpeculationStats()
    for output in runs[0].outputs:
        stats.add(output.speculation)
    deliveries = [entry for entry in timed.deliveries if entry.times]
    tpots = [
        (entry.times[-1] - entry.times[0]) / (entry.num_tokens - 1) for entry in deliveries if entry.num_tokens > 1
    ]
    seconds = statistics.median(entry.seconds for entry in runs)
    return Figures(
        num_requests=len(workload.prompts),
        max_concurrency=workload.max_concurrency,
        num_tokens=runs[0].num_tokens,
        seconds=seconds,
        tokens_per_second=runs[0].num_tokens / seconds,
        plain_tokens_per_second=_plain_rate(engine, workload),
        ttft=Spread.of([entry.times[0] for entry in deliveries]),
        itl=Spread.of([gap for entry in deliveries for gap in entry.gaps]),
        tpot_ms=statistics.mean(tpots) * 1e3 if tpots else None,
        stats=stats,
        split=measure_split(engine, workload),
        **given,
    )
