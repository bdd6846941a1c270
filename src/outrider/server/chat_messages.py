"""Messages of a conversation as clients send them, and the dicts that a chat template gets.

Clients send back what servers and libraries added to an answer. Additions that say nothing new are taken and left out;
what would have to reach the model and cannot is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.server.errors import refused
from outrider.server.strict import OnlyFalse, Strict

MAX_MESSAGES = 2048
"""Maximum number of messages of a conversation, as at OpenAI, and of parts of a message."""
_IGNORED = "Accepted and ignored."


class CacheHint(Strict):
    """Base of objects that may say where a cache should begin; the prefix cache finds equal prefixes by itself."""

    cache_control: Any = Field(None, exclude=True, description=_IGNORED)


class TextPart(CacheHint):
    """A text part of a message."""

    type: Literal["text", "input_text", "output_text"]
    text: str


Parts = Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]
Content = str | Annotated[Parts, Field(min_length=1)]


class CalledFunction(Strict):
    """A function called by an earlier answer."""

    name: str
    arguments: str | None = Field(description="The arguments, a JSON object as a string; null: none.")
    parsed_arguments: Any = Field(None, exclude=True, description="A copy of arguments. " + _IGNORED)


class ToolCall(Strict):
    """A tool call of an earlier answer."""

    id: str
    type: Literal["function"] | None = None
    function: CalledFunction
    index: int | None = Field(None, exclude=True, description=_IGNORED)


class SystemMessage(CacheHint):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(CacheHint):
    """A message from the user."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(CacheHint):
    """An earlier answer of the model."""

    role: Literal["assistant"]
    content: str | Parts | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = Field(None, description="Another name of reasoning.")
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_MESSAGES)] | None = None
    parsed: Any = Field(None, exclude=True, description="A copy of content. " + _IGNORED)
    prefix: OnlyFalse | None = Field(None, exclude=True, description="See continue_final_message.")
    partial: OnlyFalse | None = Field(None, exclude=True, description="See continue_final_message.")


class ToolMessage(CacheHint):
    """The result of a tool call."""

    role: Literal["tool"]
    content: str | Parts
    tool_call_id: str
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


def plain_message(message: Strict) -> dict[str, Any]:
    """The message as a dict for templates, without fields that say nothing.

    An assistant's missing content becomes "", and its reasoning has all of its names: templates read one of them.
    Raises APIError.
    """
    plain = message.model_dump(exclude_none=True)
    content = plain.get("content")
    if isinstance(content, list):
        plain["content"] = [{"type": "text", "text": part["text"]} for part in content] or ""
    if isinstance(message, AssistantMessage):
        plain.setdefault("content", "")
        _add_reasoning(plain, message)
        if message.tool_calls:
            plain["tool_calls"] = [_plain_call(call) for call in message.tool_calls]
        else:
            plain.pop("tool_calls", None)  # an empty list would look like calls to some templates
    return plain


def _add_reasoning(plain: dict[str, Any], message: AssistantMessage) -> None:
    given = {text for text in (message.reasoning, message.reasoning_content) if text}
    if len(given) > 1:
        raise refused(
            "a message has reasoning and reasoning_content, two names of the same thing, and they differ. Give one.",
            param="messages",
        )
    names = ["reasoning", "reasoning_content"]
    # the template of gpt-oss reads "thinking", and takes no message that has it, content and calls
    if not (plain["content"] and message.tool_calls):
        names.append("thinking")
    for name in names:
        plain.pop(name, None)
        if given:
            plain[name] = next(iter(given))


def _plain_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments or ""}
    return {"id": call.id, "type": "function", "function": function}
