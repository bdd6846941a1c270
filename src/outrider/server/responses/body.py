"""The body of POST /v1/responses: its fields, the items of its input, and the chat request that it stands for.

Knows no stored responses: the items of earlier responses are passed in.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from outrider.core.sampling_params import MAX_LOGPROBS
from outrider.server.body import checked
from outrider.server.chat import ChatRequest
from outrider.server.chat_messages import MAX_MESSAGES
from outrider.server.errors import refused
from outrider.server.fields import (
    INT32,
    WHOLE,
    GenerationFields,
    JsonObjectFormat,
    JsonSchema,
    Stops,
    TextFormat,
)
from outrider.server.not_offered import NOT_OFFERED
from outrider.server.responses.items import ITEM_TYPES, InputItem, chat_messages
from outrider.server.strict import OnlyFalse, Strict
from outrider.server.tools import FunctionName

LOGPROBS = "message.output_text.logprobs"


class FunctionTool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of the arguments.")
    strict: bool | None = None

    def for_chat(self) -> dict[str, Any]:
        """The tool in the form of chat completions."""
        return {"type": "function", "function": self.model_dump(exclude={"type"})}


class ChosenTool(Strict):
    """Forces a call of this function."""

    type: Literal["function"]
    name: FunctionName


class NamedSchemaFormat(JsonSchema):
    """The text is JSON that satisfies a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class TextConfig(Strict):
    """The form of the text."""

    format: Annotated[TextFormat | JsonObjectFormat | NamedSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = Field(None, description="Must be medium. Ask for another one in a message.")


class ReasoningConfig(Strict):
    """The reasoning of the answer."""

    effort: str | None = Field(
        None, description="Passed to the chat template, for templates that use reasoning_effort."
    )
    summary: Literal["auto"] | None = Field(None, description="Reasoning is returned whole; summaries are not made.")
    generate_summary: Literal["auto"] | None = Field(None, description="The older name of summary.")


class ResponseStreamOptions(Strict):
    """Options of a stream."""

    include_obfuscation: OnlyFalse | None = Field(None, description="Must be false: events are not padded.")


class ResponseRequest(GenerationFields):
    """Body of POST /v1/responses."""

    not_offered: ClassVar[Mapping[str, str]] = {
        name: remedy
        for name, remedy in NOT_OFFERED.items()
        if name not in ("metadata", "reasoning", "service_tier", "store")
    } | {
        "context_management": "Send the items that the model shall see.",
        "conversation": "Use previous_response_id, or send the earlier items in input.",
        "logprobs": f'Use include: ["{LOGPROBS}"] and top_logprobs.',
        "max_completion_tokens": "Use max_output_tokens.",
        "max_tokens": "Use max_output_tokens.",
        "max_tool_calls": "It limits built-in tools, which are not offered.",
        "messages": "Use input, or send the body to /v1/chat/completions.",
        "moderation": "Output is not filtered.",
        "n": "A response has one answer. Use /v1/chat/completions for several.",
        "prompt": "Stored prompts are not supported. Use input.",
        "prompt_cache_options": "The prefix cache finds equal prefixes by itself. Leave the field out.",
        "reasoning_effort": "Use reasoning.effort.",
        "request_id": "A response has a random id, because the server stores responses under it.",
        "response_format": "Use text.format.",
    }

    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES)] = Field(
        description="A text, or a list of items."
    )
    instructions: str | None = Field(None, description="A system message before all items.")
    previous_response_id: str | None = Field(
        None, description="A stored response; its conversation comes before the input."
    )
    store: bool | None = Field(
        None, description="Default true: the response is kept in the server's memory, the oldest being dropped."
    )
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = Field(
        None, description="Returned with the response."
    )
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = Field(
        None,
        description="message.output_text.logprobs adds log-probabilities. reasoning.encrypted_content adds nothing: "
        "reasoning items hold their text, and can be sent back.",
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] | None = Field(
        None, description="Default and maximum: what fits into the context after the prompt."
    )
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = Field(
        None, description='Default "auto". A forced call needs tools.'
    )
    parallel_tool_calls: bool | None = Field(None, description="False allows at most one tool call.")
    reasoning: ReasoningConfig | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS), WHOLE] | None = Field(
        None, description=f"Number of most likely tokens per position. Needs include: {LOGPROBS}."
    )
    truncation: Literal["disabled"] | None = Field(None, description="Must be disabled: no item is dropped.")
    stream_options: ResponseStreamOptions | None = None
    stop: Stops | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Further variables for the chat template.")
    background: OnlyFalse | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: str | None = Field(None, description="Accepted and ignored.")
    safety_identifier: str | None = Field(None, description="Accepted and ignored.")
    prompt_cache_key: str | None = Field(None, description="Accepted and ignored.")
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = None

    @property
    def wants_logprobs(self) -> bool:
        """True if the text comes with log-probabilities."""
        return LOGPROBS in (self.include or [])

    def items(self) -> list[InputItem]:
        """The input as items."""
        if isinstance(self.input, str):
            return [ITEM_TYPES.validate_python({"type": "message", "role": "user", "content": self.input})]
        return self.input

    def chat_request(self, items: Sequence[InputItem]) -> ChatRequest:
        """The chat request for a conversation of `items`. Raises APIError for fields that exclude each other."""
        if self.top_logprobs and not self.wants_logprobs:
            raise refused(
                f'top_logprobs={self.top_logprobs} needs include: ["{LOGPROBS}"]. Add it, or leave top_logprobs out.',
                param="top_logprobs",
            )
        given = {name: getattr(self, name) for name in GenerationFields.model_fields}
        choice = self.tool_choice
        if not self.tools and choice == "auto":  # the default, which OpenAI's agents send with every request
            choice = None
        if isinstance(choice, ChosenTool):
            named: Any = {"type": "function", "function": {"name": choice.name}}
        else:
            named = choice
        own = {
            "messages": chat_messages(items, instructions=self.instructions),
            "max_completion_tokens": self.max_output_tokens,
            "logprobs": self.wants_logprobs or None,
            "top_logprobs": self.top_logprobs if self.wants_logprobs else None,
            "response_format": self._response_format(),
            "tools": [tool.for_chat() for tool in self.tools] if self.tools else None,
            "tool_choice": named,
            "parallel_tool_calls": self.parallel_tool_calls,
            "stop": self.stop,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "chat_template_kwargs": self.chat_template_kwargs,
        }
        return checked(ChatRequest, given | own)

    def _response_format(self) -> Any:
        asked = self.text.format if self.text is not None else None
        if isinstance(asked, NamedSchemaFormat):
            return {"type": "json_schema", "json_schema": asked.model_dump(exclude={"type"}, by_alias=True)}
        return asked
