"""The requests for the scores of several pairs, and the scores from their outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.core.pooling import PoolingRequestOutput, ScoringOutput, ScoringRequestOutput
from outrider.core.request import Request
from outrider.engine.similarity import similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch:
    """Requests of one call. If each text is embedded by itself, those of the queries come first, each query once."""

    requests: list[Request]
    num_queries: int
    """Queries that are embedded by themselves; 0 if a request holds a whole pair."""

    def outputs(self, pooled: Sequence[PoolingRequestOutput]) -> list[ScoringRequestOutput]:
        """A score for each document, in their order; `pooled` in the order of the requests."""
        assert len(pooled) == len(self.requests), f"{len(pooled)} outputs of {len(self.requests)} requests"
        if not self.num_queries:
            return [ScoringRequestOutput.from_base(output) for output in pooled]
        queries, documents = pooled[: self.num_queries], pooled[self.num_queries :]
        if self.num_queries == 1:
            queries = [queries[0]] * len(documents)
        return [
            ScoringRequestOutput(
                request_id=document.request_id,
                outputs=ScoringOutput(score=similarity(query.outputs, document.outputs)),
                prompt_token_ids=query.prompt_token_ids + document.prompt_token_ids,
                num_cached_tokens=query.num_cached_tokens + document.num_cached_tokens,
            )
            for query, document in zip(queries, documents, strict=True)
        ]
