"""The /metrics page: vLLM's names with the prefix `outrider:`, in Prometheus' text format.

Engine counters come from the engine's latest snapshot. Times that only the front can measure, from the arrival of a
request to what left the server, are collected here. Knows no HTTP and no engine.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outrider.core.outputs import RequestOutput, RequestTiming
from outrider.core.pooling import PoolingRequestOutput
from outrider.engine.stats import TURN_TOKENS, EngineStats

PREFIX = "outrider:"
LABELS = ("model_name", "engine")

_SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 40.0)
"""Bucket ends in seconds, for times of tokens."""
_LONG = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 240.0, 960.0)
"""Bucket ends in seconds, for times of requests."""
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 80.0, 640.0)
"""Bucket ends in seconds, for times to the first token."""
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_CHOICES = (1, 2, 5, 10, 20)

_HISTOGRAMS: Mapping[str, tuple[str, Sequence[float]]] = {
    "time_to_first_token_seconds": ("Time from a request's arrival to its first token.", _FIRST),
    "inter_token_latency_seconds": ("Time between deliveries of one completion, each of one token or more.", _SHORT),
    "request_time_per_output_token_seconds": ("Decode time of a request divided by its tokens minus one.", _SHORT),
    "e2e_request_latency_seconds": ("Time from a request's arrival to its end.", _LONG),
    "request_queue_time_seconds": ("Time of a request in the engine's queue.", _LONG),
    "request_inference_time_seconds": ("Time from a request's first step to its end.", _LONG),
    "request_prefill_time_seconds": ("Time from a request's first step to its first token.", _LONG),
    "request_decode_time_seconds": ("Time from a request's first token to its end.", _LONG),
    "request_prompt_tokens": ("Number of prompt tokens of a request.", _TOKENS),
    "request_generation_tokens": ("Number of emitted tokens of a completion.", _TOKENS),
    "request_params_n": ("Number of completions that a request asks for.", _CHOICES),
}
"""Name to help text and bucket ends."""
_OF_POOLING = (
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prompt_tokens",
)
"""Histograms of a pooling model, which emits no tokens."""


class Metrics:
    """All series of one served model. Not thread-safe."""

    def __init__(self, model_name: str, *, engine: str = "0", is_pooling: bool = False) -> None:
        """is_pooling: leave out the series of tokens that are generated."""
        self._labels = (model_name, engine)
        self._registry = CollectorRegistry()
        self._engine = _EngineSeries(self._labels, is_pooling=is_pooling)
        self._registry.register(self._engine)
        self._histograms = {
            name: Histogram(PREFIX + name, text, LABELS, registry=self._registry, buckets=buckets).labels(*self._labels)
            for name, (text, buckets) in _HISTOGRAMS.items()
            if not is_pooling or name in _OF_POOLING
        }

    @property
    def stats(self) -> EngineStats | None:
        """The engine's latest counts."""
        return self._engine.stats

    def observe_snapshot(self, stats: EngineStats) -> None:
        """Takes the engine's latest counters; a restarted engine begins at zero."""
        self._engine.stats = stats

    def on_first_token(self, seconds: float) -> None:
        """Records the time from a request's arrival to its first token."""
        self._observe("time_to_first_token_seconds", seconds)

    def on_inter_token(self, seconds: float) -> None:
        """Records the time between two deliveries of a completion."""
        self._observe("inter_token_latency_seconds", seconds)

    def on_request_finished(self, output: RequestOutput, *, seconds: float) -> None:
        """Records a request that ended for any reason, `seconds` after it arrived."""
        self._observe("e2e_request_latency_seconds", seconds)
        self._observe("request_prompt_tokens", len(output.prompt_token_ids))
        self._observe("request_params_n", len(output.outputs))
        for completion in output.outputs:
            self._observe("request_generation_tokens", len(completion.token_ids))
        if output.timing is not None:
            longest = max(len(completion.token_ids) for completion in output.outputs)
            self._observe_timing(output.timing, num_tokens=longest)

    def on_pooled(self, output: PoolingRequestOutput, *, seconds: float) -> None:
        """Records a request of a pooling model that was answered, `seconds` after it arrived."""
        self._observe("e2e_request_latency_seconds", seconds)
        self._observe("request_prompt_tokens", len(output.prompt_token_ids))
        if output.timing is not None and output.timing.prefill is not None:
            self._observe("request_queue_time_seconds", output.timing.queue)
            self._observe("request_inference_time_seconds", output.timing.prefill)

    def _observe_timing(self, timing: RequestTiming, *, num_tokens: int) -> None:
        self._observe("request_queue_time_seconds", timing.queue)
        if timing.prefill is None or timing.decode is None:
            return
        self._observe("request_inference_time_seconds", timing.prefill + timing.decode)
        self._observe("request_prefill_time_seconds", timing.prefill)
        self._observe("request_decode_time_seconds", timing.decode)
        if num_tokens > 1:
            self._observe("request_time_per_output_token_seconds", timing.decode / (num_tokens - 1))

    def _observe(self, name: str, value: float) -> None:
        self._histograms[name].observe(value)

    def render(self) -> tuple[bytes, str]:
        """The page and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


class _EngineSeries(Collector):
    """The engine's counters as series; none before the first snapshot."""

    def __init__(self, labels: Sequence[str], *, is_pooling: bool) -> None:
        self.stats: EngineStats | None = None
        self._is_pooling = is_pooling
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        stats = self.stats
        if stats is None:
            return
        exact = "1 if tokens depend on weights, prompt, parameters and seed only, else 0."
        yield self._gauge("exact", exact, float(stats.is_exact))
        yield self._gauge("num_requests_running", "Number of running completions.", stats.num_running)
        yield self._gauge("num_requests_waiting", "Number of completions in the engine's queue.", stats.num_waiting)
        usage = stats.num_used_blocks / max(1, stats.num_blocks)  # an encoder has no blocks
        yield self._gauge("kv_cache_usage_perc", "Share of the KV blocks in use; 1 is all.", usage)
        yield self._counter("num_steps", "Number of steps planned.", stats.num_steps)
        replayed = "The part of num_steps that was replayed as a captured graph."
        yield self._counter("num_replayed_steps", replayed, stats.num_replayed_steps)
        yield self._counter(
            "num_preemptions", "Number of running completions that were put back into the queue.", stats.num_preemptions
        )
        yield self._counter(
            "prompt_tokens", "Prompt tokens of completions that emitted at least one token.", stats.num_prompt_tokens
        )
        cached = "The part of prompt_tokens that came from the prefix cache."
        yield self._counter("prompt_tokens_cached", cached, stats.num_cached_prompt_tokens)
        if not self._is_pooling:
            yield self._counter(
                "generation_tokens", "Emitted tokens, without tokens after a stop.", stats.num_generation_tokens
            )
        queries = "Tokens of admitted completions that were looked up in the prefix cache."
        yield self._counter("prefix_cache_queries", queries, stats.num_prefix_queried_tokens)
        yield self._counter(
            "prefix_cache_hits", "The part of prefix_cache_queries that was found.", stats.num_prefix_hit_tokens
        )
        yield self._by(
            "request_success", "Completions that ended, by finish reason.", "finished_reason", stats.finished
        )
        yield self._turns(stats)
        if stats.speculation.max_drafts > 0:
            yield from self._speculation(stats)

    def _speculation(self, stats: EngineStats) -> Iterator[Metric]:
        counts, name = stats.speculation, "spec_decode_num_"
        drafts = "Number of times that a completion had at least one draft verified."
        yield self._counter(name + "drafts", drafts, counts.num_drafts)
        yield self._counter(name + "draft_tokens", "Number of drafts that were verified.", counts.num_draft_tokens)
        yield self._counter(name + "accepted_tokens", "Number of drafts that were emitted.", counts.num_accepted_tokens)
        places = {str(place): count for place, count in enumerate(counts.num_accepted_tokens_per_pos)}
        text = "Number of drafts that were emitted, by their position in the step."
        yield self._by(name + "accepted_tokens_per_pos", text, "position", places)

    def _turns(self, stats: EngineStats) -> Metric:
        ends = [*(str(float(end)) for end in TURN_TOKENS), "+Inf"]
        family = HistogramMetricFamily(
            PREFIX + "iteration_tokens_total",
            "Tokens per turn of the engine's loop: prompt tokens computed and tokens emitted.",
            labels=LABELS,
        )
        buckets = list(zip(ends, accumulate(stats.turn_counts), strict=True))
        family.add_metric(self._labels, buckets, sum_value=stats.turn_tokens)
        return family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(PREFIX + name, text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _counter(self, name: str, text: str, value: int) -> Metric:
        family = CounterMetricFamily(PREFIX + name, text, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _by(self, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(PREFIX + name, text, labels=(*LABELS, label))
        for key, value in values.items():
            family.add_metric((*self._labels, key), value)
        return family
