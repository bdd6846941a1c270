"""Types of the responses of a pooling model: the published schema. Tests check every response against them."""

from typing import Literal

from pydantic import Field

from outrider.server.answers import Answer, PromptDetails


class PoolingUsage(Answer):
    """Token counts of the call: what the model read, after truncation."""

    prompt_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class PoolingAnswer(Answer):
    """Fields of every answer with a list."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: PoolingUsage


class Embedding(Answer):
    """The vector of a text: numbers, or base64 of little-endian fp32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(PoolingAnswer):
    """Response of /v1/embeddings."""

    data: list[Embedding]


class Class(Answer):
    """The value of each label for a text, and the label with the largest one."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassifyAnswer(PoolingAnswer):
    """Response of /classify."""

    data: list[Class]


class Pooled(Answer):
    """The numbers of a text: [size], or [tokens, size] for a task by token."""

    object: Literal["pooling"]
    index: int
    shape: list[int]
    data: list[float] | list[list[float]] | str


class EncodeAnswer(PoolingAnswer):
    """Response of /pooling."""

    data: list[Pooled]


class Score(Answer):
    """The score of a pair."""

    object: Literal["score"]
    index: int
    score: float


class ScoreAnswer(PoolingAnswer):
    """Response of /score and /v1/score."""

    data: list[Score]


class DocumentText(Answer):
    """A document as it was sent."""

    text: str


class Ranked(Answer):
    """A document's place in the request, and its score. `document` is left out with return_documents: false."""

    index: int
    document: DocumentText = Field(default=None)  # type: ignore[assignment]
    relevance_score: float


class RerankAnswer(Answer):
    """Response of /rerank, /v1/rerank and /v2/rerank: the documents, the most relevant one first."""

    id: str
    model: str
    results: list[Ranked]
    usage: PoolingUsage
