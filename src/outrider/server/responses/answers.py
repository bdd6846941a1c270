"""Types of the answers of /v1/responses: the published schema."""

from typing import Any, Literal

from pydantic import Field

from outrider.server.answers import Answer, PlaceLogprobs, PromptDetails, Speculation

Status = Literal["in_progress", "completed", "incomplete"]


class OutputTextAnswer(Answer):
    """A text of the model."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = Field(max_length=0)
    logprobs: list[PlaceLogprobs]


class MessageItem(Answer):
    """A message of the model."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Status
    content: list[OutputTextAnswer]


class FunctionCallItem(Answer):
    """A function call of the model."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


class ReasoningTextAnswer(Answer):
    """A text of the model's reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Answer):
    """The model's reasoning."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[Any] = Field(max_length=0)
    content: list[ReasoningTextAnswer]


class IncompleteDetails(Answer):
    """The reason why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class InputDetails(PromptDetails):
    """Token counts of the input."""

    cache_write_tokens: int


class OutputDetails(Answer):
    """Token counts of the output."""

    reasoning_tokens: int


class ResponseUsage(Answer):
    """Token counts of the response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    speculation: Speculation


class ResponseAnswer(Answer):
    """A response."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    background: Literal[False]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[MessageItem | FunctionCallItem | ReasoningItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage


class DeletedAnswer(Answer):
    """Response of DELETE /v1/responses/{response_id}."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]
