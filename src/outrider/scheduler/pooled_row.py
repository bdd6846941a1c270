"""The part of a chunk that a pooling request gets numbers for."""

from collections.abc import Sequence

from outrider.core.plan import PooledRow
from outrider.core.pooling import TOKEN_CLASSIFY, TOKEN_EMBED
from outrider.scheduler.request_state import RequestState

BY_TOKEN = (TOKEN_EMBED, TOKEN_CLASSIFY)
"""Tasks with a result for each token, or for each token of one id."""


def pooled_row(state: RequestState, start: int, num_tokens: int) -> PooledRow:
    """The results of a chunk of `num_tokens` tokens from position `start` on."""
    params = state.pooling
    assert params is not None, f"request {state.request_id} generates"
    is_by_token = params.task in BY_TOKEN
    is_last = start + num_tokens == state.num_tokens
    offsets: Sequence[int] = (num_tokens - 1,) if is_last else ()
    if is_by_token:
        offsets = range(num_tokens)
        if params.step_tag_id is not None:
            chunk = state.token_ids[start : start + num_tokens]
            offsets = [offset for offset, token_id in enumerate(chunk) if token_id == params.step_tag_id]
    return PooledRow(
        offsets=offsets,
        is_by_token=is_by_token,
        start=start,
        num_skipped=state.request.text_start,
        size=params.dimensions or 0,
        activates=bool(params.activates),
        token_types=state.request.token_type_ids[start : start + num_tokens],
    )
