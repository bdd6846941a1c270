"""The unfinished pooling requests of an engine, and the outputs of those that have ended."""

import time
from array import array
from collections.abc import Callable

from outrider.core.outputs import FinishReason, RequestTiming
from outrider.core.pooling import TOKEN_CLASSIFY, TOKEN_EMBED, PoolingOutput, PoolingRequestOutput
from outrider.engine.request_times import RequestTimes
from outrider.scheduler.request_state import RequestState

OnPooled = Callable[[PoolingRequestOutput], None]


class PoolingRequests:
    """Callers of pooling requests by request id. Each is called once, when its request has ended."""

    def __init__(self) -> None:
        self._callers: dict[str, tuple[OnPooled, RequestTimes]] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._callers

    def times(self, request_id: str) -> RequestTimes:
        """The times of a request."""
        return self._callers[request_id][1]

    def begin(self, request_id: str, on_pooled: OnPooled) -> None:
        """Note the caller of a request."""
        self._callers[request_id] = (on_pooled, RequestTimes(queued=time.monotonic()))

    def end(self, state: RequestState) -> None:
        """Pass the output of a request that has ended to its caller."""
        on_pooled, times = self._callers.pop(state.request_id)
        now = time.monotonic()
        if state.finish_reason is FinishReason.STOP:
            times.first_token = now
        on_pooled(_output(state, times.timing(now)))


def _output(state: RequestState, timing: RequestTiming) -> PoolingRequestOutput:
    is_whole = state.finish_reason is FinishReason.STOP
    return PoolingRequestOutput(
        request_id=state.request_id,
        prompt_token_ids=list(state.request.prompt_token_ids),
        outputs=_numbers(state) if is_whole else PoolingOutput(values=array("f"), shape=(0,)),
        prompt=state.request.prompt,
        num_cached_tokens=max(state.num_cached_tokens, 0),
        num_preemptions=state.num_preemptions,
        finished=is_whole,
        timing=timing,
    )


def _numbers(state: RequestState) -> PoolingOutput:
    """The numbers that the request asked for, of all that its rows gave."""
    params, values = state.pooling, state.pooled
    assert params is not None, f"request {state.request_id} generates"
    if params.task not in (TOKEN_EMBED, TOKEN_CLASSIFY):
        kept = values[: params.dimensions] if params.dimensions is not None else values
        return PoolingOutput(values=kept, shape=(len(kept),))
    num_rows = state.num_prompt_tokens
    if params.step_tag_id is not None:
        num_rows = state.request.prompt_token_ids.count(params.step_tag_id)
    width = len(values) // num_rows if num_rows else 0
    columns = params.returned_token_ids or range(width if params.dimensions is None else params.dimensions)
    if len(columns) < width or params.returned_token_ids is not None:
        values = array("f", [values[row * width + column] for row in range(num_rows) for column in columns])
    return PoolingOutput(values=values, shape=(num_rows, len(columns) if num_rows else 0))
