"""The n completions of one prompt: each is a request of its own, and the caller sees them as one.

Completion 0 is the request itself; the others differ from it in the noise's completion index only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from outrider.core.outputs import (
    CompletionOutput,
    FinishReason,
    Logprob,
    OutputDelta,
    RequestOutput,
    RequestTiming,
    SpeculationStats,
)
from outrider.core.request import Request

Name = Callable[[list[dict[int, Logprob]]], list[dict[int, Logprob]]]
"""Adds each token's own text to log-probabilities."""


def completions_of(request: Request) -> list[Request]:
    """`request` and its copies for the other completions; nothing is queued yet."""
    others = [
        replace(
            request,
            request_id=f"{request.request_id}#{index}",
            completion_index=index,
            params=replace(request.params, prompt_logprobs=None),
            token_ids=[],
            block_ids=[],
            block_hashes=[],
            is_draft=[],
            logprobs=[],
            prompt_logprobs=[],
            speculation=_empty(request.speculation),
        )
        for index in range(1, request.params.n)
    ]
    return [request, *others]


def _empty(stats: SpeculationStats) -> SpeculationStats:
    return SpeculationStats(
        max_drafts=stats.max_drafts,
        num_accepted_tokens_per_pos=[0] * len(stats.num_accepted_tokens_per_pos),
        is_synthetic=stats.is_synthetic,
    )


def stop_reason_of(request: Request) -> int | str | None:
    """The token id or string that ended it; None for eos, length and abort."""
    return request.stop_reason if request.finish_reason is FinishReason.STOP else None


@dataclass(slots=True, kw_only=True)
class RequestTimes:
    """When things happened to a prompt's completions, in seconds of one clock; None: not yet."""

    queued: float
    planned: float | None = None
    first_token: float | None = None

    def timing(self, ended: float) -> RequestTiming:
        planned = ended if self.planned is None else self.planned
        first = self.first_token
        return RequestTiming(
            queue=planned - self.queued,
            prefill=None if first is None else first - planned,
            decode=None if first is None else ended - first,
        )


@dataclass(slots=True, kw_only=True)
class Group:
    """One prompt's completions, running and finished."""

    requests: list[Request]
    on_delta: Callable[[OutputDelta], None] | None
    times: RequestTimes
    completions: dict[int, CompletionOutput] = field(default_factory=dict)
    num_told: dict[int, int] = field(default_factory=dict)
    """Tokens of each completion that were given in deltas."""

    @property
    def request_id(self) -> str:
        return self.requests[0].request_id

    def delta(self, request: Request, text: str, output: RequestOutput | None, name: Name) -> OutputDelta | None:
        """What is new since the last delta of this completion; None where nothing is."""
        told = self.num_told.get(request.completion_index, 0)
        token_ids = request.output_token_ids[told:]
        if not token_ids and not text and request.finish_reason is None:
            return None
        self.num_told[request.completion_index] = told + len(token_ids)
        completion = self.completions.get(request.completion_index)
        has_logprobs = request.params.num_logprobs is not None
        return OutputDelta(
            request_id=self.request_id,
            index=request.completion_index,
            text=text,
            token_ids=token_ids,
            is_draft=request.is_draft[told:],
            draft_counts=request.speculation.counts,
            logprobs=name(request.logprobs[told:]) if has_logprobs else None,
            finish_reason=request.finish_reason.value if request.finish_reason is not None else None,
            stop_reason=stop_reason_of(request),
            error=request.error,
            logits_digest=completion.logits_digest if completion is not None else None,
            output=output,
        )

    def output(self, name: Name, *, ended: float) -> RequestOutput:
        """All completions, finished at `ended`, in seconds of the clock's."""
        first = self.requests[0]
        speculation = _empty(first.speculation)
        for request in self.requests:
            speculation.add(request.speculation)
        scored = first.params.prompt_logprobs is not None
        return RequestOutput(
            request_id=self.request_id,
            prompt=first.prompt,
            prompt_token_ids=first.prompt_token_ids,
            outputs=[self.completions[index] for index in sorted(self.completions)],
            seed=first.seed,
            num_cached_tokens=max(first.num_cached_tokens, 0),
            num_preemptions=sum(request.num_preemptions for request in self.requests),
            speculation=speculation,
            prompt_logprobs=[None, *name(first.prompt_logprobs)] if scored else None,
            timing=self.times.timing(ended),
        )
