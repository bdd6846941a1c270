"""/rerank, /v1/rerank and /v2/rerank: documents in the order of their relevance to a query."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import ScoringRequestOutput
from outrider.server.body import read_body
from outrider.server.fields import INT32, WHOLE
from outrider.server.front import Front
from outrider.server.pooling.call import PoolingCall, usage_of
from outrider.server.pooling.pairs import Document, Documents, PairFields, Pairs, text_of


class RerankRequest(PairFields):
    """Body of /rerank."""

    query: Document
    documents: Documents
    top_n: Annotated[int, Field(ge=0, le=INT32), WHOLE] | None = Field(
        None, description="Return this many documents; 0: all (the default)."
    )
    return_documents: bool | None = Field(None, description="False leaves the texts of documents out. Default true.")


async def rerank(request: Request) -> Response:
    """Handles POST /rerank, /v1/rerank and /v2/rerank."""
    front: Front = request.app.state.front
    body = await read_body(request, RerankRequest)
    front.check_model(body.model)
    call = PoolingCall(front, body, prefix="rerank")
    documents = [text_of(document) for document in body.documents]
    pairs = await Pairs(call, body, queries=[text_of(body.query)], documents=documents).scored(request)
    return await call.answer(lambda: _answer(call, body, pairs), num_values=len(pairs))


def _answer(call: PoolingCall, body: RerankRequest, pairs: list[ScoringRequestOutput]) -> dict[str, Any]:
    order = ranked([pair.outputs.score for pair in pairs])[: body.top_n or None]
    results: list[dict[str, Any]] = []
    for index in order:
        result: dict[str, Any] = {"index": index}
        if body.return_documents is not False:
            result["document"] = {"text": text_of(body.documents[index])}
        results.append(result | {"relevance_score": pairs[index].outputs.score})
    return {"id": call.id, "model": call.model, "results": results, "usage": usage_of(pairs)}


def ranked(scores: list[float]) -> list[int]:
    """Indices by descending score; the first of equal ones comes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
