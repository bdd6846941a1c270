"""Formats the figures as text like `vllm bench serve`, and as JSON with its keys."""

from collections.abc import Iterator, Sequence
from typing import Any

from outrider.bench.serve.answer import Answer
from outrider.bench.serve.counters import Counters
from outrider.bench.serve.figures import METRICS, Figures
from outrider.bench.serve.setting import Setting

_WIDTH = 50


def lines(setting: Setting, figures: Figures, counters: Counters, *, metrics: Sequence[str]) -> Iterator[str]:
    """Lines for a terminal, with the latencies in `metrics`; latencies without values are left out."""
    yield f"{' Serving Benchmark Result ':=^{_WIDTH}}"
    yield _row("Successful requests:", figures.completed)
    yield _row("Failed requests:", figures.failed)
    if setting.max_concurrency is not None:
        yield _row("Maximum request concurrency:", setting.max_concurrency)
    if setting.request_rate != float("inf"):
        yield _row("Request rate configured (RPS):", setting.request_rate)
    yield _row("Benchmark duration (s):", figures.duration)
    yield _row("Total input tokens:", figures.total_input_tokens)
    yield _row("Total generated tokens:", figures.total_output_tokens)
    yield _row("Request throughput (req/s):", figures.request_throughput)
    if figures.request_goodput is not None:
        yield _row("Request goodput (req/s):", figures.request_goodput)
    if figures.num_good is not None and figures.missed is not None:
        yield _row("Good requests:", figures.num_good)
        for name, count in figures.missed.items():
            yield _row(f"  {name.upper()} above {setting.goodput[name]:g} ms:", count)
    yield _row("Output token throughput (tok/s):", figures.output_throughput)
    yield _row("Peak output token throughput (tok/s):", figures.max_output_tokens_per_s)
    yield _row("Peak concurrent requests:", figures.max_concurrent_requests)
    yield _row("Total token throughput (tok/s):", figures.total_token_throughput)
    for name in metrics:
        latency = figures.latencies.get(name)
        if latency is not None:
            yield f"{METRICS[name]:-^{_WIDTH}}"
            yield _row(f"Mean {name.upper()} (ms):", latency.mean)
            yield _row(f"Median {name.upper()} (ms):", latency.median)
            for percent, value in latency.percentiles.items():
                yield _row(f"P{percent:g} {name.upper()} (ms):", value)
    yield from _speculation(counters)
    yield "=" * _WIDTH
    for error, count in figures.errors.items():
        yield f"{count} failed: {error}"
    if counters.note is not None:
        yield f"/metrics: {counters.note}"


def _speculation(counters: Counters) -> Iterator[str]:
    if counters.acceptance_length is None:
        return
    yield f"{'Speculative Decoding':-^{_WIDTH}}"
    if counters.acceptance_rate is not None:
        yield _row("Acceptance rate (%):", counters.acceptance_rate * 100)
    yield _row("Acceptance length:", counters.acceptance_length)
    yield _row("Drafts:", counters.num_drafts)
    if counters.num_draft_tokens is not None:
        yield _row("Draft tokens:", counters.num_draft_tokens)
    yield _row("Accepted tokens:", counters.num_accepted_tokens)
    if counters.num_accepted_tokens_per_pos:
        yield "Per-position acceptance (%):"
        for position, rate in enumerate(counters.acceptance_rate_per_pos):
            yield _row(f"  Position {position}:", rate * 100)


def _row(name: str, value: float | None) -> str:
    return f"{name:<40} {f'{value:.2f}' if isinstance(value, float) else value:<9}".rstrip()


def result(
    setting: Setting, figures: Figures, counters: Counters, answers: Sequence[Answer], *, is_detailed: bool
) -> dict[str, Any]:
    """All measurements for the JSON file, regardless of what was printed."""
    content: dict[str, Any] = {
        **setting.to_dict(),
        "duration": figures.duration,
        "completed": figures.completed,
        "failed": figures.failed,
        "total_input_tokens": figures.total_input_tokens,
        "total_output_tokens": figures.total_output_tokens,
        "request_throughput": figures.request_throughput,
        "request_goodput": figures.request_goodput,
        "good_requests": figures.num_good,
        "missed_limits": dict(figures.missed) if figures.missed is not None else None,
        "output_throughput": figures.output_throughput,
        "total_token_throughput": figures.total_token_throughput,
        "max_output_tokens_per_s": figures.max_output_tokens_per_s,
        "max_concurrent_requests": figures.max_concurrent_requests,
    }
    for name, latency in figures.latencies.items():
        content[f"mean_{name}_ms"] = latency.mean
        content[f"median_{name}_ms"] = latency.median
        content[f"std_{name}_ms"] = latency.std
        for percent, value in latency.percentiles.items():
            content[f"p{percent:g}_{name}_ms"] = value
    if counters.acceptance_length is not None:
        rate_percent = counters.acceptance_rate
        content |= {
            "spec_decode_acceptance_rate": rate_percent * 100 if rate_percent is not None else None,
            "spec_decode_acceptance_length": counters.acceptance_length,
            "spec_decode_num_drafts": counters.num_drafts,
            "spec_decode_draft_tokens": counters.num_draft_tokens,
            "spec_decode_accepted_tokens": counters.num_accepted_tokens,
            "spec_decode_per_position_acceptance_rates": counters.acceptance_rate_per_pos,
        }
    content["metrics_note"] = counters.note
    content["error_counts"] = dict(figures.errors)
    if is_detailed:
        content |= {
            "input_lens": [answer.num_prompt_tokens for answer in answers],
            "output_lens": [answer.num_output_tokens for answer in answers],
            "ttfts": [answer.ttft for answer in answers],
            "itls": [answer.itl for answer in answers],
            "generated_texts": [answer.text for answer in answers],
            "errors": [answer.error or "" for answer in answers],
        }
    return content
