"""Scores of pairs of texts: one request for a pair where the model reads both at once, else one for each text."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import Field
from starlette.requests import Request as HTTPRequest

from outrider.core.content import ContentKey
from outrider.core.pooling import SCORE, PairOptions, PoolingRequestOutput, ScoringRequestOutput
from outrider.core.request import Request
from outrider.engine.pair_batch import PairBatch
from outrider.server.fields import INT32, WHOLE
from outrider.server.pooling.call import READ_AT_ONCE, PoolingCall
from outrider.server.pooling.fields import PoolingFields
from outrider.server.pooling.inputs import MAX_INPUTS
from outrider.server.strict import Strict


class TextDocument(Strict):
    """A text as an object."""

    text: str


Document = str | TextDocument
Documents = Annotated[list[Document], Field(min_length=1, max_length=MAX_INPUTS)]
Limit = Annotated[int, Field(ge=0, le=INT32, json_schema_extra={"x-limit": "part-of-context"}), WHOLE]


def text_of(document: Document) -> str:
    """The text of a document."""
    return document if isinstance(document, str) else document.text


class PairFields(PoolingFields):
    """Fields of endpoints that score pairs."""

    max_tokens_per_query: Limit | None = Field(
        None,
        description="Keep this many leading tokens of a query, cut before the pair is built; 0: all (the default).",
    )
    max_tokens_per_doc: Limit | None = Field(None, description="Likewise of a document.")
    instruction: str | None = Field(
        None, description="The task, for models that read one before the pair. Default: the model's own."
    )

    def options(self) -> PairOptions:
        """Limits and instruction of the pairs."""
        return PairOptions(
            max_tokens_per_query=self.max_tokens_per_query or 0,
            max_tokens_per_doc=self.max_tokens_per_doc or 0,
            instruction=self.instruction,
        )


class Pairs:
    """Queries and documents of a call: one query for all documents, or one for each."""

    def __init__(
        self, call: PoolingCall, body: PairFields, *, queries: Sequence[str], documents: Sequence[str]
    ) -> None:
        self._call = call
        self._queries = queries
        self._documents = documents
        self._params = body.params(SCORE)
        self._options = body.options()
        self._batches: list[PairBatch] = []  # in the order of the documents

    async def scored(self, request: HTTPRequest) -> list[ScoringRequestOutput]:
        """The scores in the order of the documents. Raises APIError or RequestError."""
        front, count = self._call.front, len(self._documents)
        abilities = front.info.pooling
        if abilities is not None and abilities.pair_input != "joined":
            count += len(self._queries)
        makers = [partial(self._requests, begin) for begin in range(0, len(self._documents), READ_AT_ONCE)]
        outputs = await self._call.outputs(request, makers, count=count)
        return await front.aside(partial(self._scores, outputs))

    def _requests(
        self, begin: int, *, new_id: Callable[[], str], content_keys: Sequence[ContentKey]
    ) -> Sequence[Request]:
        """Requests of the pairs from `begin` on. A query that all documents share is read once."""
        end = begin + READ_AT_ONCE
        is_shared = len(self._queries) == 1
        batch = self._call.front.pooling.pairs(
            self._queries if is_shared else self._queries[begin:end],
            self._documents[begin:end],
            self._params,
            options=self._options,
            new_id=new_id,
            content_keys=content_keys,
        )
        if not (self._batches and is_shared and batch.num_queries):
            self._batches.append(batch)
            return batch.requests
        documents = batch.requests[1:]
        self._batches.append(replace(batch, requests=[self._batches[0].requests[0], *documents]))
        return documents

    def _scores(self, outputs: Sequence[PoolingRequestOutput]) -> list[ScoringRequestOutput]:
        found = {output.request_id: output for output in outputs}
        return [
            scored
            for batch in self._batches
            for scored in batch.outputs([found[request.request_id] for request in batch.requests])
        ]
