"""Adds a step's results to a request: confirmed tokens with their origin, digests and log-probabilities.

Knows neither plans nor blocks.
"""

from collections.abc import Iterable

from outrider.core.digest import fold
from outrider.core.outputs import Logprob
from outrider.core.plan import RowResult, TokenLogprobs
from outrider.scheduler.request_state import RequestState


def confirm_tokens(state: RequestState, result: RowResult, *, num_kept: int) -> None:
    """Append the first `num_kept` emitted tokens, with everything that the step reports about them."""
    token_ids = result.token_ids if num_kept == len(result.token_ids) else result.token_ids[:num_kept]
    num_accepted = min(result.num_accepted, num_kept)
    state.token_ids.extend(token_ids)
    state.is_draft.extend([True] * num_accepted + [False] * (num_kept - num_accepted))
    state.speculation.record(num_drafts=result.num_drafts, num_accepted=num_accepted)
    if result.logits_hashes:
        for row_hash in result.logits_hashes[:num_kept]:
            state.logits_digest = fold(state.logits_digest, row_hash)
    if result.logprobs:
        given_ids = state.params.logprob_token_ids or ()
        for token_id, entry in zip(token_ids, result.logprobs, strict=False):
            state.logprobs.append(_logprobs(token_id, entry, given_ids))


def score_prompt(state: RequestState, scores: Iterable[TokenLogprobs]) -> None:
    """Append log-probabilities of the next prompt tokens; the first token of a prompt has none."""
    state.prompt_logprobs.extend(scores)


def _logprobs(token_id: int, entry: TokenLogprobs, given_ids: Iterable[int]) -> dict[int, Logprob]:
    """Log-probabilities by token id: the most likely tokens, those asked for by id, and the token itself."""
    ranked = enumerate(zip(entry.top_ids, entry.top_logprobs, strict=True), start=1)
    logprobs = {top_id: Logprob(logprob=value, rank=rank) for rank, (top_id, value) in ranked}
    for given_id, value, rank in zip(given_ids, entry.given_logprobs, entry.given_ranks, strict=True):
        logprobs[given_id] = Logprob(logprob=value, rank=rank)
    logprobs[token_id] = Logprob(logprob=entry.logprob, rank=entry.rank)
    return logprobs
