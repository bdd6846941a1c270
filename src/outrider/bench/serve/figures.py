"""The figures of a run, with vLLM's definitions unless noted otherwise. Numbers in, numbers out."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.bench.serve.answer import Answer
from outrider.core.errors import ConfigError

METRICS = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}
"""Name of each latency to its title."""


def percentile(ranked: Sequence[float], percent: float) -> float:
    """The percentile of ascending values, interpolated linearly."""
    place = (len(ranked) - 1) * percent / 100.0
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The distribution of a latency, in milliseconds."""

    mean: float
    median: float
    std: float
    percentiles: Mapping[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Results of a run. Rates are per second of the whole run."""

    completed: int
    failed: int
    errors: Mapping[str, int]
    """Error text of failed requests to their number."""
    duration: float
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    request_goodput: float | None
    """Requests per second that kept every limit; None without limits."""
    num_good: int | None
    """Requests that kept every limit."""
    missed: Mapping[str, int] | None
    """Requests that succeeded above the limit, by the name of the latency; one request may miss several."""
    output_throughput: float
    total_token_throughput: float
    max_output_tokens_per_s: float
    """Tokens in the best second; a request's tokens are spread evenly over its deliveries."""
    max_concurrent_requests: int
    latencies: Mapping[str, Latency]
    """By the names of METRICS; a latency without values is absent."""


def figures_of(
    answers: Sequence[Answer], *, seconds: float, percents: Sequence[float], goodput: Mapping[str, float]
) -> Figures:
    """Computes all figures. `goodput`: names of METRICS to the limit in milliseconds for a good request."""
    good = [answer for answer in answers if answer.error is None]
    num_output = sum(answer.num_output_tokens for answer in good)
    num_input = sum(answer.num_prompt_tokens for answer in good)
    errors = Counter(answer.error for answer in answers if answer.error is not None)
    kept = [answer for answer in good if all(_keeps(answer, name, limit) for name, limit in goodput.items())]
    missed = {name: sum(not _keeps(answer, name, limit) for answer in good) for name, limit in goodput.items()}
    return Figures(
        completed=len(good),
        failed=len(answers) - len(good),
        errors=dict(errors.most_common()),
        duration=seconds,
        total_input_tokens=num_input,
        total_output_tokens=num_output,
        request_throughput=len(good) / seconds,
        request_goodput=len(kept) / seconds if goodput else None,
        num_good=len(kept) if goodput else None,
        missed=missed if goodput else None,
        output_throughput=num_output / seconds,
        total_token_throughput=(num_input + num_output) / seconds,
        max_output_tokens_per_s=max(tokens_by_second(good), default=0.0),
        max_concurrent_requests=_most_at_once(answers),
        latencies={name: _latency(values, percents=percents) for name in METRICS if (values := values_of(good, name))},
    )


def values_of(answers: Sequence[Answer], name: str) -> list[float]:
    """All values of a latency in seconds, in the order of the answers."""
    if name == "itl":
        return [gap for answer in answers for gap in answer.itl]
    return [value for answer in answers if (value := _value(answer, name)) is not None]


def _value(answer: Answer, name: str) -> float | None:
    return {"ttft": answer.ttft, "tpot": answer.tpot, "e2el": answer.latency}[name]


def _keeps(answer: Answer, name: str, limit: float) -> bool:
    """True if a latency is within its limit in milliseconds, or if the answer does not have it."""
    value = _value(answer, name)
    return value is None or value * 1e3 <= limit


def _latency(seconds: Sequence[float], *, percents: Sequence[float]) -> Latency:
    ranked = sorted(value * 1e3 for value in seconds)
    return Latency(
        mean=statistics.fmean(ranked),
        median=percentile(ranked, 50.0),
        std=statistics.pstdev(ranked),
        percentiles={percent: percentile(ranked, percent) for percent in percents},
    )


def tokens_by_second(answers: Sequence[Answer]) -> list[float]:
    """Number of output tokens in each second since the first request."""
    if not answers:
        return []
    begin = min(answer.sent for answer in answers)
    found: defaultdict[int, float] = defaultdict(float)
    for answer in answers:
        times = answer.deliveries or [answer.ended]
        for at in times:
            found[int(at - begin)] += answer.num_output_tokens / len(times)
    return [found[second] for second in range(max(found) + 1)]


def _most_at_once(answers: Sequence[Answer]) -> int:
    events = [(answer.sent, 1) for answer in answers] + [(answer.ended, -1) for answer in answers]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def parse_percents(text: str) -> list[float]:
    """Parses percentiles like "50,99". Raises ConfigError."""
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        percents = [-1.0]
    if not all(0.0 <= percent <= 100.0 for percent in percents):
        raise ConfigError(f"--metric-percentiles={text!r} is not a list of numbers from 0 to 100. Example: 50,90,99.")
    return percents


def parse_metrics(text: str) -> list[str]:
    """Parses names of METRICS like "ttft,itl". Raises ConfigError."""
    names = text.split(",")
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"--percentile-metrics={text!r}: {name!r} is unknown. Use {', '.join(METRICS)}.")
    return names


def parse_goodput(parts: Sequence[str]) -> dict[str, float]:
    """Parses limits like ["ttft:200", "tpot:50 e2el:3000"] to milliseconds by name. Raises ConfigError."""
    found: dict[str, float] = {}
    for part in " ".join(parts).replace(",", " ").split():
        name, _, value = part.partition(":")
        try:
            limit = float(value)
        except ValueError:
            limit = -1.0
        if name not in ("ttft", "tpot", "e2el") or not 0.0 <= limit < math.inf:
            raise ConfigError(
                f"--goodput {part!r} is not NAME:MILLISECONDS. Use the names ttft, tpot, e2el; example: ttft:200."
            )
        if name in found:
            raise ConfigError(f"--goodput {part!r}: {name} has a limit already, {found[name]:g} ms. Give one.")
        found[name] = limit
    return found


def parse_rates(text: str) -> list[float]:
    """Parses requests per second like "4,12,inf"; several are a sweep. Raises ConfigError."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(rate > 0.0 for rate in rates):
        raise ConfigError(
            f"--request-rate={text!r} must be above 0: a number, or several like 4,12,20 for a sweep. inf sends all at "
            "once."
        )
    if len(set(rates)) != len(rates):
        raise ConfigError(f"--request-rate={text!r} has a rate twice. Give each once.")
    return rates
