"""Puts the loads of workload D on a way to an engine, and computes what the tables show.

A request that fails or that has another number of tokens than it asked for ends the benchmark.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.traffic.ways import Offline, Online
from outrider.bench.serve.answer import Answer
from outrider.bench.serve.figures import percentile
from outrider.bench.serve.workload import Ask

_LOOK_SECONDS = 0.002
"""Time between two looks at running answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A load whose requests all ended. Times are milliseconds; None where the way does not report them."""

    num_requests: int
    seconds: float
    """From the first request to the end of the last."""
    output_tokens_per_s: float
    ttft: tuple[float, float] | None
    """First token: p50, p99."""
    tpot: float | None
    """Time per token after the first: mean over requests."""
    e2el: tuple[float, float] | None
    """Whole request: p50, p99."""
    replayed: float | None
    """Share of the steps that were replayed as graphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """Running requests while prompts come in. Milliseconds between two deliveries of a request, each of one step."""

    before: float
    """Median before the prompts came."""
    meanwhile: float
    """Median from then to the last prompt's first token."""
    meanwhile_p99: float
    last_ttft: float
    """From the arrival of the prompts to the last one's first token."""
    replayed: float | None


def run_offline(way: Offline, asks: Sequence[Ask]) -> Figures:
    """All requests together, through one call."""
    before, begin = way.steps(), time.perf_counter()
    answers = way.run(asks)
    seconds = time.perf_counter() - begin
    _check(asks, answers)
    return _figures(answers, seconds=seconds, replayed=_share(before, way.steps()))


async def run_online(way: Online, asks: Sequence[Ask], times: Sequence[float] | None = None) -> Figures:
    """Each request at its time in seconds from the start; all at once without times."""
    before, begin = await way.steps(), time.perf_counter()
    answers: list[Answer] = []
    tasks = []
    for ask, at in zip(asks, times or [0.0] * len(asks), strict=True):
        wait = begin + at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        answers.append(Answer(sent=time.perf_counter()))
        tasks.append(asyncio.create_task(way.ask(ask, answers[-1])))
    await asyncio.gather(*tasks)
    seconds = max(answer.ended for answer in answers) - begin
    _check(asks, answers)
    return _figures(answers, seconds=seconds, replayed=_share(before, await way.steps()))


async def interrupt(way: Online, running: Sequence[Ask], arriving: Sequence[Ask], *, num_watched: int) -> Interruption:
    """Let `running` decode until each has had `num_watched` deliveries twice, then send `arriving` together."""
    answers = [Answer(sent=time.perf_counter()) for _ in running]
    tasks = [asyncio.create_task(way.ask(ask, answer)) for ask, answer in zip(running, answers, strict=True)]
    try:
        await _until(lambda: min(len(answer.deliveries) for answer in answers) >= num_watched, tasks)
        begin = time.perf_counter()
        watched = 2 * num_watched
        await _until(lambda: min(len(answer.deliveries) for answer in answers) >= watched, tasks)
        steps, arrival = await way.steps(), time.perf_counter()
        new = [Answer(sent=arrival) for _ in arriving]
        await asyncio.gather(*(way.ask(ask, answer) for ask, answer in zip(arriving, new, strict=True)))
        _check(arriving, new)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    replayed = _share(steps, await way.steps())
    last = max(answer.deliveries[0] for answer in new)
    meanwhile = sorted(_gaps(answers, arrival, last))
    return Interruption(
        before=statistics.median(_gaps(answers, begin, arrival)),
        meanwhile=percentile(meanwhile, 50.0),
        meanwhile_p99=percentile(meanwhile, 99.0),
        last_ttft=(last - arrival) * 1e3,
        replayed=replayed,
    )


async def _until(holds: Callable[[], bool], tasks: Sequence[asyncio.Task[None]]) -> None:
    while not holds():
        for task in tasks:
            if task.done():
                task.result()
                raise AssertionError("a running request ended before the prompts came")
        await asyncio.sleep(_LOOK_SECONDS)


def _gaps(answers: Sequence[Answer], begin: float, end: float) -> list[float]:
    """Milliseconds between two deliveries of a request, the second of them in the window."""
    return [
        (after - before) * 1e3
        for answer in answers
        for before, after in pairwise(answer.deliveries)
        if begin < after <= end
    ]


def _check(asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.error is None, answer.error
        found = answer.num_output_tokens
        assert found == ask.max_tokens, f"{found} tokens instead of {ask.max_tokens}"


def _figures(answers: Sequence[Answer], *, seconds: float, replayed: float | None) -> Figures:
    num_tokens = sum(answer.num_output_tokens for answer in answers)
    is_timed = all(answer.deliveries for answer in answers)
    return Figures(
        num_requests=len(answers),
        seconds=seconds,
        output_tokens_per_s=num_tokens / seconds,
        ttft=_p50_p99([answer.ttft for answer in answers]) if is_timed else None,
        tpot=statistics.fmean(tpot for answer in answers if (tpot := answer.tpot) is not None) * 1e3
        if is_timed
        else None,
        e2el=_p50_p99([answer.latency for answer in answers]) if is_timed else None,
        replayed=replayed,
    )


def _p50_p99(seconds: Sequence[float]) -> tuple[float, float]:
    ranked = sorted(value * 1e3 for value in seconds)
    return percentile(ranked, 50.0), percentile(ranked, 99.0)


def _share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Replayed steps over all steps between two readings."""
    if before is None or after is None or after[0] == before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])
