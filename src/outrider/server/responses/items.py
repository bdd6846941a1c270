"""Items of a response's input, in OpenAI's form, and the chat messages that a list of them stands for."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter

from outrider.server.chat_messages import MAX_MESSAGES
from outrider.server.strict import Strict

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Strict):
    """A text part of a message to the model."""

    type: Literal["input_text"]
    text: str


class OutputText(Strict):
    """A text part of an earlier answer. Its log-probabilities are not read."""

    type: Literal["output_text"]
    text: str
    logprobs: list[Any] | None = Field(None, exclude=True)


class Given(Strict):
    """Base of all items: what an earlier answer's items carry, and the model does not see."""

    id: str | None = None
    status: Status | None = None


class MessageToModel(Given):
    """Instructions, or a message from the user."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: str | Annotated[list[InputText], Field(min_length=1, max_length=MAX_MESSAGES)]


class MessageOfModel(Given):
    """An earlier answer's text."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: str | Annotated[list[OutputText], Field(max_length=MAX_MESSAGES)]


class FunctionCall(Given):
    """A function call of an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str = Field(description="The arguments, a JSON object as a string.")


class FunctionCallOutput(Given):
    """The result of a function call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Annotated[list[InputText], Field(min_length=1, max_length=MAX_MESSAGES)]


class ReasoningText(Strict):
    """A part of an earlier answer's reasoning."""

    type: Literal["reasoning_text"]
    text: str


class Reasoning(Given):
    """An earlier answer's reasoning, for chat templates that use it."""

    type: Literal["reasoning"]
    content: Annotated[list[ReasoningText], Field(max_length=MAX_MESSAGES)] | None = None


class ItemReference(Strict):
    """An item of a stored response."""

    type: Literal["item_reference"] = "item_reference"
    id: str


def _kind(value: Any) -> str | None:
    """The class of an item."""
    if not isinstance(value, dict):
        return type(value).__name__
    kind = value.get("type", "message" if "role" in value else "item_reference")
    if kind == "message":
        return "MessageOfModel" if value.get("role") == "assistant" else "MessageToModel"
    names = {
        "function_call": "FunctionCall",
        "function_call_output": "FunctionCallOutput",
        "reasoning": "Reasoning",
        "item_reference": "ItemReference",
    }
    return names.get(kind) if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[MessageToModel, Tag("MessageToModel")]
    | Annotated[MessageOfModel, Tag("MessageOfModel")]
    | Annotated[FunctionCall, Tag("FunctionCall")]
    | Annotated[FunctionCallOutput, Tag("FunctionCallOutput")]
    | Annotated[Reasoning, Tag("Reasoning")]
    | Annotated[ItemReference, Tag("ItemReference")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message="an item is a message, function_call, function_call_output, reasoning or item_reference; "
        "other types are not offered",
    ),
]
ITEM_TYPES: TypeAdapter[Any] = TypeAdapter(InputItem)


def chat_messages(items: Sequence[Any], *, instructions: str | None) -> list[dict[str, Any]]:
    """The messages of a chat request. Reasoning, text and calls that follow each other are one assistant message."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    answer: dict[str, Any] | None = None
    """The assistant message that more items may join."""
    for item in items:
        if isinstance(item, MessageToModel | FunctionCallOutput):
            messages.append(_to_model(item))
            answer = None
            continue
        if answer is None or (
            isinstance(item, MessageOfModel | Reasoning) and ("content" in answer or "tool_calls" in answer)
        ):
            answer = {"role": "assistant"}
            messages.append(answer)
        if isinstance(item, Reasoning):
            said = "".join(part.text for part in item.content or [])
            answer["reasoning_content"] = answer.get("reasoning_content", "") + said
        elif isinstance(item, MessageOfModel):
            answer["content"] = _text(item.content)
        elif isinstance(item, FunctionCall):
            function = {"name": item.name, "arguments": item.arguments}
            answer.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
        else:
            raise AssertionError(f"{type(item).__name__} was not replaced")
    return messages


def _to_model(item: MessageToModel | FunctionCallOutput) -> dict[str, Any]:
    if isinstance(item, FunctionCallOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
    content: Any = item.content
    if not isinstance(content, str):
        content = [{"type": "text", "text": part.text} for part in content]
    return {"role": item.role, "content": content}


def _text(content: str | Sequence[InputText] | Sequence[OutputText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
