"""/score and /v1/score: a number for each pair of texts."""

from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from outrider.core.pooling import ScoringRequestOutput
from outrider.server.body import read_body
from outrider.server.errors import refused
from outrider.server.front import Front
from outrider.server.pooling.call import PoolingCall, usage_of
from outrider.server.pooling.pairs import Document, Documents, PairFields, Pairs, text_of

_NAMES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))
"""Names of the two sides of the pairs; they mean the same."""
_TEXT = "A text, or a list of texts."


class ScoreRequest(PairFields):
    """Body of /score: one text and one, one and many, or as many on either side."""

    queries: Document | Documents | None = Field(None, description=_TEXT)
    documents: Document | Documents | None = Field(None, description=_TEXT)
    items: Document | Documents | None = Field(None, description="Another name of documents.")
    text_1: Document | Documents | None = Field(None, description="Another name of queries.")
    text_2: Document | Documents | None = Field(None, description="Another name of documents.")
    data_1: Document | Documents | None = Field(None, description="Another name of queries.")
    data_2: Document | Documents | None = Field(None, description="Another name of documents.")

    def sides(self) -> tuple[list[str], list[str]]:
        """Queries, one or as many as documents, and documents. Raises APIError."""
        given = {name for names in _NAMES for name in names if getattr(self, name) is not None}
        names = next((names for names in _NAMES if set(names) == given), None)
        if names is None:
            have = " and ".join(sorted(given)) or "none"
            raise refused(
                f"the texts are given as {have}. Give text_1 and text_2, or queries and documents.", param="text_1"
            )
        queries, documents = (_listed(getattr(self, name)) for name in names)
        if len(queries) not in (1, len(documents)):
            raise refused(
                f"{names[0]} has {len(queries)} texts and {names[1]} {len(documents)}. Give one and any number, or as "
                "many of both.",
                param=names[0],
            )
        return queries, documents


def _listed(given: Any) -> list[str]:
    return [text_of(entry) for entry in (given if isinstance(given, list) else [given])]


async def score(request: Request) -> Response:
    """Handles POST /score and /v1/score."""
    front: Front = request.app.state.front
    body = await read_body(request, ScoreRequest)
    front.check_model(body.model)
    call = PoolingCall(front, body, prefix="score")
    queries, documents = body.sides()
    pairs = await Pairs(call, body, queries=queries, documents=documents).scored(request)
    return await call.answer(lambda: _answer(call, pairs), num_values=len(pairs))


def _answer(call: PoolingCall, pairs: list[ScoringRequestOutput]) -> dict[str, Any]:
    data = [{"object": "score", "index": index, "score": pair.outputs.score} for index, pair in enumerate(pairs)]
    return call.envelope() | {"data": data, "usage": usage_of(pairs)}
