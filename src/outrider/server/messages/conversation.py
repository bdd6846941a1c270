"""Messages in Anthropic's form: their content blocks, and the chat messages that a list of them stands for."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.server.chat_messages import MAX_MESSAGES, CacheHint
from outrider.server.errors import refused
from outrider.server.strict import Strict


class TextBlock(CacheHint):
    """A text."""

    type: Literal["text"]
    text: str


class ToolUseBlock(CacheHint):
    """A tool call of an earlier answer."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(CacheHint):
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | Annotated[list[TextBlock], Field(max_length=MAX_MESSAGES)] | None = None
    is_error: bool | None = Field(None, description='True: the result reaches the model with "Error: " before it.')


class ThinkingBlock(Strict):
    """The thinking of an earlier answer, for chat templates that use it. Its signature is not read."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


UserBlock = Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[TextBlock | ToolUseBlock | ThinkingBlock, Field(discriminator="type")]


class MessageFromUser(Strict):
    """A message from the user, or results of tool calls."""

    role: Literal["user"]
    content: str | Annotated[list[UserBlock], Field(min_length=1, max_length=MAX_MESSAGES)]


class MessageFromModel(Strict):
    """An earlier answer; the last message, too: the answer then continues it."""

    role: Literal["assistant"]
    content: str | Annotated[list[AssistantBlock], Field(max_length=MAX_MESSAGES)]


class MessageFromSystem(Strict):
    """Instructions between the other messages."""

    role: Literal["system"]
    content: str | Annotated[list[TextBlock], Field(min_length=1, max_length=MAX_MESSAGES)]


AnthropicMessage = Annotated[MessageFromUser | MessageFromModel | MessageFromSystem, Field(discriminator="role")]


def continues_last(messages: Sequence[Any]) -> bool:
    """True if the answer continues the last message: one of the model, with text."""
    return isinstance(messages[-1], MessageFromModel) and bool(_answer(messages[-1]).get("content"))


def chat_messages(messages: Sequence[Any], *, system: str | Sequence[TextBlock] | None) -> list[dict[str, Any]]:
    """The messages of a chat request. Raises APIError if the last message ends with a tool call."""
    found: list[dict[str, Any]] = []
    if system is not None:
        found.append({"role": "system", "content": _content(system)})
    for message in messages:
        if isinstance(message, MessageFromModel):
            found.append(_answer(message))
        elif isinstance(message, MessageFromSystem):
            found.append({"role": "system", "content": _content(message.content)})
        else:
            found.extend(_to_model(message))
    if found[-1].get("tool_calls"):
        raise refused(
            "messages ends with a tool_use block, whose result is missing. Add a user message with its tool_result.",
            param="messages",
        )
    return found


def _answer(message: MessageFromModel) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    answer: dict[str, Any] = {"role": "assistant"}
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    if texts:
        answer["content"] = "".join(texts)
    thoughts = [block.thinking for block in message.content if isinstance(block, ThinkingBlock)]
    if thoughts:
        answer["reasoning_content"] = "".join(thoughts)
    calls = [_call(block) for block in message.content if isinstance(block, ToolUseBlock)]
    if calls:
        answer["tool_calls"] = calls
    return answer


def _call(block: ToolUseBlock) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _to_model(message: MessageFromUser) -> Iterator[dict[str, Any]]:
    """Chat messages of the tool and the user, in the order of the blocks."""
    if isinstance(message.content, str):
        yield {"role": "user", "content": message.content}
        return
    texts: list[TextBlock] = []
    for block in message.content:
        if isinstance(block, TextBlock):
            texts.append(block)
            continue
        if texts:
            yield {"role": "user", "content": _content(texts)}
            texts = []
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}
    if texts:
        yield {"role": "user", "content": _content(texts)}


def _result(block: ToolResultBlock) -> str:
    content = block.content or ""
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    return f"Error: {text}" if block.is_error else text


def _content(content: str | Sequence[TextBlock]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [{"type": "text", "text": block.text} for block in content]
