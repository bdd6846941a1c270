"""Types of the answers of /v1/messages: the published schema."""

from typing import Any, Literal

from outrider.server.answers import Answer, Speculation


class TextAnswer(Answer):
    """A text of the model."""

    type: Literal["text"]
    text: str


class ThinkingAnswer(Answer):
    """The model's thinking. The signature is empty: nothing has to prove that it came from here."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseAnswer(Answer):
    """A tool call of the model."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Answer):
    """Token counts of the call; input_tokens are those that did not come from the prefix cache."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    speculation: Speculation


class MessageAnswer(Answer):
    """Response of /v1/messages."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextAnswer | ThinkingAnswer | ToolUseAnswer]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class TokenCountAnswer(Answer):
    """Response of /v1/messages/count_tokens."""

    input_tokens: int


class AnthropicErrorDetail(Answer):
    """The error: its kind and its message."""

    type: str
    message: str


class AnthropicErrorAnswer(Answer):
    """An error in Anthropic's form."""

    type: Literal["error"]
    error: AnthropicErrorDetail
