"""The /metrics page: values by hand, vLLM's names, the gate's own reader, and the dashboard that asks for them."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outrider.core.outputs import CompletionOutput, FinishReason, RequestOutput, RequestTiming, SpeculationStats
from outrider.engine.stats import TURN_TOKENS, EngineStats
from outrider.gate.metrics_page import Series, parse_page, read_page
from outrider.server.metrics import Metrics

ROOT = Path(__file__).parents[2]
MODEL = 'a "model"\\of mine'
STATS = EngineStats(
    is_exact=True,
    num_running=3,
    num_waiting=2,
    num_used_blocks=30,
    num_blocks=120,
    num_steps=900,
    num_replayed_steps=890,
    num_preemptions=4,
    num_prompt_tokens=912,
    num_cached_prompt_tokens=64,
    num_generation_tokens=2048,
    num_prefix_queried_tokens=1000,
    num_prefix_hit_tokens=96,
    speculation=SpeculationStats(
        max_drafts=3, num_steps=848, num_drafts=800, num_draft_tokens=2400, num_accepted_tokens=1200,
        num_accepted_tokens_per_pos=[600, 400, 200],
    ),
    finished={reason.value: count for reason, count in zip(FinishReason, (3, 5, 1, 0), strict=True)},
    turn_counts=(5, 4, *([0] * (len(TURN_TOKENS) - 2)), 1),
    turn_tokens=20000,
)  # fmt: skip


def page(metrics: Metrics) -> str:
    content, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    return content.decode()


def values(metrics: Metrics) -> dict[tuple[str, str], float]:
    """By the name without prefix, and by the labels beyond model and engine."""
    found = {}
    for entry in parse_page(page(metrics)):
        assert entry.labels["model_name"] == MODEL and entry.labels["engine"] == "0"
        others = ",".join(value for name, value in entry.labels.items() if name not in ("model_name", "engine"))
        found[entry.name.removeprefix("outrider:"), others] = entry.value
    return found


def seen(stats: EngineStats = STATS) -> Metrics:
    metrics = Metrics(MODEL)
    metrics.observe_snapshot(stats)
    return metrics


def output(*lengths: int, timing: RequestTiming | None) -> RequestOutput:
    return RequestOutput(
        request_id="1",
        prompt=None,
        prompt_token_ids=[1] * 7,
        outputs=[
            CompletionOutput(index=index, text="", token_ids=[1] * length, finish_reason="stop")
            for index, length in enumerate(lengths)
        ],
        seed=0,
        num_cached_tokens=0,
        num_preemptions=0,
        speculation=SpeculationStats(),
        timing=timing,
    )


def test_counts_of_a_snapshot_are_on_the_page() -> None:
    found = values(seen())
    expected = {
        ("exact", ""): 1, ("num_requests_running", ""): 3, ("num_requests_waiting", ""): 2,
        ("kv_cache_usage_perc", ""): 0.25, ("num_preemptions_total", ""): 4, ("prompt_tokens_total", ""): 912,
        ("prompt_tokens_cached_total", ""): 64, ("generation_tokens_total", ""): 2048,
        ("prefix_cache_queries_total", ""): 1000, ("prefix_cache_hits_total", ""): 96,
        ("request_success_total", "stop"): 3, ("request_success_total", "length"): 5,
        ("request_success_total", "abort"): 1, ("request_success_total", "error"): 0,
        ("iteration_tokens_total_bucket", "1.0"): 5, ("iteration_tokens_total_bucket", "2.0"): 9,
        ("iteration_tokens_total_bucket", "16384.0"): 9, ("iteration_tokens_total_bucket", "+Inf"): 10,
        ("iteration_tokens_total_count", ""): 10, ("iteration_tokens_total_sum", ""): 20000,
        ("spec_decode_num_accepted_tokens_per_pos_total", "2"): 200, ("num_steps_total", ""): 900,
        ("num_replayed_steps_total", ""): 890,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected


def test_the_gate_reads_the_page() -> None:
    reading = read_page(page(seen()), model=MODEL)
    assert reading.kind == "outrider" and not reading.is_idle
    assert (reading.running, reading.waiting, reading.generation_tokens, reading.finished) == (3, 2, 2048, 9)
    assert (reading.drafts, reading.draft_tokens, reading.accepted) == (800, 2400, 1200)
    assert reading.accepted_per_pos == (600, 400, 200)


def test_names_are_those_of_vllm() -> None:
    """Every name that the recorded page of vLLM has, ours has too, with the same labels and type of metric."""
    theirs = parse_page((ROOT / "tests" / "gate" / "pages" / "vllm.txt").read_text())
    ours = {entry.name: entry.labels.keys() for entry in parse_page(page(seen()))}
    compared = 0
    for entry in theirs:
        if entry.name.startswith("vllm:") and not entry.name.endswith("_created"):
            compared += 1
            assert ours.get(entry.name.replace("vllm:", "outrider:")) == entry.labels.keys(), entry.name
    assert compared > 10


def test_an_engine_without_drafter_has_no_counts_of_drafts() -> None:
    off = seen(replace(STATS, speculation=SpeculationStats(), is_exact=False))
    assert "spec_decode" not in page(off) and values(off)["exact", ""] == 0.0


def test_before_the_first_snapshot_the_engine_is_unknown() -> None:
    text = page(Metrics(MODEL))
    assert "num_requests_running" not in text and "outrider:e2e_request_latency_seconds_count" in text


def test_a_new_engine_process_counts_from_zero() -> None:
    metrics = seen()
    metrics.observe_snapshot(replace(STATS, num_generation_tokens=1))
    assert values(metrics)["generation_tokens_total", ""] == 1


def test_times_are_counted_once_and_in_their_buckets() -> None:
    metrics = Metrics(MODEL)
    metrics.on_first_token(0.03)
    for seconds in (0.0005, 0.0015, 0.0015, 99.0):
        metrics.on_inter_token(seconds)
    metrics.on_request_finished(output(5, 11, timing=RequestTiming(queue=0.2, prefill=0.4, decode=2.0)), seconds=2.75)
    metrics.on_request_finished(output(1, timing=RequestTiming(queue=3.0, prefill=None, decode=None)), seconds=3.5)
    found = values(metrics)
    expected = {
        ("time_to_first_token_seconds_bucket", "0.02"): 0, ("time_to_first_token_seconds_bucket", "0.04"): 1,
        ("inter_token_latency_seconds_bucket", "0.001"): 1, ("inter_token_latency_seconds_bucket", "0.002"): 3,
        ("inter_token_latency_seconds_bucket", "40.0"): 3, ("inter_token_latency_seconds_bucket", "+Inf"): 4,
        ("e2e_request_latency_seconds_sum", ""): 6.25, ("request_queue_time_seconds_sum", ""): 3.2,
        ("request_prefill_time_seconds_count", ""): 1, ("request_decode_time_seconds_sum", ""): 2.0,
        ("request_inference_time_seconds_sum", ""): 2.4, ("request_time_per_output_token_seconds_sum", ""): 0.2,
        ("request_time_per_output_token_seconds_count", ""): 1, ("request_generation_tokens_sum", ""): 17,
        ("request_generation_tokens_count", ""): 3, ("request_prompt_tokens_sum", ""): 14,
        ("request_params_n_sum", ""): 3,
    }  # fmt: skip
    assert {key: round(found[key], 9) for key in expected} == expected


def queries(node: Any) -> Iterator[tuple[str, str]]:
    """(panel, query) of every query in a dashboard."""
    if isinstance(node, dict):
        for key in ("expr", "query"):
            if isinstance(node.get(key), str) and "outrider" in node[key]:
                yield str(node.get("name", node.get("refId", ""))), node[key]
        node = list(node.values())
    if isinstance(node, list):
        for entry in node:
            yield from queries(entry)


def wrong_in(query: str, series: list[Series]) -> list[str]:
    """Names and labels of a query that no series has, and brackets that do not close."""
    labels_of = {entry.name: entry.labels.keys() for entry in series}
    names = re.findall(r"outrider:\w+", query)
    wrong = [name for name in names if name not in labels_of]
    known = {label for name in names for label in labels_of.get(name, ())}
    asked = re.findall(r"(\w+)\s*=~?\s*\"", query)
    for group in [*re.findall(r"\bby \(([^)]*)\)", query), *re.findall(r"label_values\([^,]*,([^)]*)\)", query)]:
        asked += [label.strip() for label in group.split(",")]
    wrong += [label for label in asked if label not in known]
    wrong += [pair for pair in ("()", "[]", "{}") if query.count(pair[0]) != query.count(pair[1])]
    return wrong if names else [query]


def test_every_query_of_the_dashboard_names_series_that_exist() -> None:
    dashboard = json.loads((ROOT / "dashboards" / "outrider.json").read_text())
    series = parse_page(page(seen()))
    found = list(queries(dashboard))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(found) > len(panels) > 20 and all(panel["targets"] and panel["description"] for panel in panels)
    for where, query in found:
        assert not wrong_in(query, series), f"{where}: {query}"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    asked = {name for _, query in found for name in re.findall(r"outrider:\w+", query)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    offered = {re.sub(r"_(bucket|sum|count|created)$", "", entry.name) for entry in series}
    assert offered == shown, "a series that no panel shows"


@pytest.mark.parametrize(
    "query",
    [
        "rate(outrider:generation_tokens[1m])",
        "sum by (positions) (outrider:spec_decode_num_accepted_tokens_per_pos_total)",
        'outrider:exact{model="m"}',
        "sum(outrider:exact",
        "up",
    ],
)
def test_a_wrong_query_is_seen(query: str) -> None:
    assert wrong_in(query, parse_page(page(seen())))


def test_the_documentation_names_every_series_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    named = {
        name for line in text.splitlines() if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }  # fmt: skip
    assert named == {
        re.sub(r"_(bucket|sum|count|created)$", "", entry.name.removeprefix("outrider:"))
        for entry in parse_page(page(seen()))
    }
    series = parse_page(page(seen()))
    examples = [line.split("#")[0] for line in text.splitlines() if "rate(outrider:" in line]
    assert len(examples) == 3 and not [query for query in examples if wrong_in(query, series)]
