"""The n completions of one prompt: each is a separate request, and the caller sees them as one.

Completion 0 is the request itself; the others differ from it only in the completion index of the noise key.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from outrider.core.outputs import (
    CompletionOutput,
    OutputDelta,
    RequestOutput,
    SpeculationStats,
)
from outrider.core.request import Request
from outrider.engine.request_times import RequestTimes
from outrider.engine.token_names import TokenNames
from outrider.scheduler.request_state import RequestState


def completion_requests(request: Request) -> list[Request]:
    """`request` and the requests of its prompt's other completions, in the order of their index."""
    others = [
        replace(
            request,
            request_id=f"{request.request_id}#{index}",
            completion_index=index,
            params=replace(request.params, prompt_logprobs=None),
        )
        for index in range(1, request.params.n)
    ]
    return [request, *others]


@dataclass(slots=True, kw_only=True)
class Group:
    """One prompt's completions, running and finished."""

    states: list[RequestState]
    """States by completion index."""
    on_delta: Callable[[OutputDelta], None] | None
    times: RequestTimes
    completions: dict[int, CompletionOutput] = field(default_factory=dict)
    """Finished completions, by completion index."""
    num_told: dict[int, int] = field(default_factory=dict)
    """Number of tokens of each completion that deltas have passed on, by completion index."""

    @property
    def request_id(self) -> str:
        """Id of the prompt's request."""
        return self.states[0].request_id

    def delta(
        self, state: RequestState, text: str, output: RequestOutput | None, names: TokenNames
    ) -> OutputDelta | None:
        """Changes since the last delta of this completion; None if there are none."""
        index = state.request.completion_index
        told = self.num_told.get(index, 0)
        token_ids = state.output_token_ids[told:]
        if not token_ids and not text and state.finish_reason is None:
            return None
        self.num_told[index] = told + len(token_ids)
        completion = self.completions.get(index)
        has_logprobs = state.params.num_logprobs is not None
        return OutputDelta(
            request_id=self.request_id,
            index=index,
            text=text,
            token_ids=token_ids,
            is_draft=state.is_draft[told:],
            draft_counts=state.speculation.counts,
            logprobs=names.output(state, told) if has_logprobs else None,
            finish_reason=state.finish_reason.value if state.finish_reason is not None else None,
            stop_reason=state.stop_reason,
            error=state.error,
            logits_digest=completion.logits_digest if completion is not None else None,
            output=output,
        )

    def output(self, names: TokenNames, *, ended: float, is_synthetic: bool) -> RequestOutput:
        """All completions, finished at `ended`, in seconds of the clock of `times`."""
        first = self.states[0]
        speculation = SpeculationStats.zero(first.speculation.max_drafts, is_synthetic=is_synthetic)
        for state in self.states:
            speculation.add(state.speculation)
        scored = first.params.prompt_logprobs is not None
        return RequestOutput(
            request_id=self.request_id,
            prompt=first.request.prompt,
            prompt_token_ids=list(first.request.prompt_token_ids),
            outputs=[self.completions[index] for index in sorted(self.completions)],
            seed=first.request.seed,
            num_cached_tokens=max(first.num_cached_tokens, 0),
            num_preemptions=sum(state.num_preemptions for state in self.states),
            speculation=speculation,
            prompt_logprobs=names.prompt(first) if scored else None,
            timing=self.times.timing(ended),
        )
