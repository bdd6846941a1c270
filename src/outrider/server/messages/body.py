"""The bodies of POST /v1/messages and /v1/messages/count_tokens, and the chat request that they stand for."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from outrider.server.body import checked
from outrider.server.chat import ChatRequest
from outrider.server.chat_messages import MAX_MESSAGES, CacheHint
from outrider.server.errors import refused
from outrider.server.fields import INT32, MAX_STOPS, WHOLE, GenerationFields, ModelName, StopText
from outrider.server.front import Front
from outrider.server.messages.conversation import (
    AnthropicMessage,
    TextBlock,
    chat_messages,
    continues_last,
)
from outrider.server.not_offered import NOT_OFFERED
from outrider.server.strict import Strict
from outrider.server.tools import FunctionName


class AnthropicTool(CacheHint):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="A JSON schema of the input.")
    type: Literal["custom"] | None = None
    strict: bool | None = None

    def for_chat(self) -> dict[str, Any]:
        """The tool in the form of chat completions."""
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema}
        return {"type": "function", "function": function}


class NoTool(Strict):
    """No tool is called."""

    type: Literal["none"]


class AutoTool(Strict):
    """The model chooses whether it calls tools."""

    type: Literal["auto"]
    disable_parallel_tool_use: bool | None = None


class AnyTool(Strict):
    """The model calls at least one tool."""

    type: Literal["any"]
    disable_parallel_tool_use: bool | None = None


class OneTool(Strict):
    """The model calls this tool."""

    type: Literal["tool"]
    name: FunctionName
    disable_parallel_tool_use: bool | None = None


AnthropicChoice = Annotated[NoTool | AutoTool | AnyTool | OneTool, Field(discriminator="type")]


class Metadata(Strict):
    """Accepted and ignored."""

    user_id: str | None = None


class OutputFormat(Strict):
    """The text is JSON that satisfies a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    """The form of the answer."""

    format: OutputFormat | None = None
    effort: str | None = Field(
        None, description="Passed to the chat template, for templates that use reasoning_effort."
    )


class ThinkingOn(Strict):
    """The model may think. Needs a server with --reasoning-parser."""

    type: Literal["enabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] | None = Field(
        None, description="Accepted and not enforced: max_tokens limits thinking and text together."
    )
    display: Literal["summarized"] | None = Field(None, description="Thinking is returned whole.")


class ThinkingOff(Strict):
    """No thinking, where the chat template can turn it off (enable_thinking); none is returned in any case."""

    type: Literal["disabled"]


_NOT_OFFERED = {
    name: remedy for name, remedy in NOT_OFFERED.items() if name not in ("metadata", "service_tier", "thinking")
} | {
    "container": "Code is not executed.",
    "context_management": "Send the messages that the model shall see.",
    "inference_geo": "The server runs where it was started.",
    "max_completion_tokens": "Use max_tokens.",
    "mcp_servers": "Tools run in the caller. Offer them in tools.",
    "n": "A message has one answer. Use /v1/chat/completions for several.",
    "response_format": "Use output_config.format.",
    "speed": "There is only one speed. Leave the field out.",
    "stop": "Use stop_sequences.",
    "stream_options": "The last events of a stream have the usage.",
}


class ConversationFields(CacheHint):
    """Fields of both bodies: what the model reads."""

    not_offered: ClassVar[Mapping[str, str]] = _NOT_OFFERED

    model: ModelName | None = Field(None, description="Default: the served model.")
    system: str | Annotated[list[TextBlock], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[AnthropicTool], Field(max_length=128)] | None = None
    tool_choice: AnthropicChoice | None = Field(None, description="Default auto. A forced call needs tools.")
    thinking: Annotated[ThinkingOn | ThinkingOff, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Further variables for the chat template.")

    def chat_fields(self, front: Front) -> dict[str, Any]:
        """The fields of the chat request that both bodies give. Raises APIError."""
        choice = self.tool_choice
        if not self.tools and isinstance(choice, AutoTool):
            choice = None
        chosen: Any = None
        if isinstance(choice, OneTool):
            chosen = {"type": "function", "function": {"name": choice.name}}
        elif choice is not None:
            chosen = "required" if isinstance(choice, AnyTool) else choice.type
        is_single = getattr(choice, "disable_parallel_tool_use", None)
        continues = continues_last(self.messages)
        return {
            "model": self.model,
            "messages": chat_messages(self.messages, system=self.system),
            "tools": [tool.for_chat() for tool in self.tools] if self.tools else None,
            "tool_choice": chosen,
            "parallel_tool_calls": False if is_single else None,
            "chat_template_kwargs": self._template_kwargs(front),
            "include_reasoning": False if isinstance(self.thinking, ThinkingOff) else None,
            "reasoning_effort": self.output_config.effort if self.output_config is not None else None,
            "add_generation_prompt": False if continues else None,
            "continue_final_message": True if continues else None,
        }

    def _template_kwargs(self, front: Front) -> dict[str, Any] | None:
        """Variables for the chat template, which may be able to turn thinking on and off. Raises APIError."""
        asked = self.thinking
        if isinstance(asked, ThinkingOn) and front.options.reasoning_parser is None:
            raise refused(
                f"thinking.type={asked.type!r} needs a server that can tell thinking from text. Start it with "
                "--reasoning-parser, or leave thinking out.",
                param="thinking",
            )
        if asked is None or "enable_thinking" not in (front.chat_template or ""):
            return self.chat_template_kwargs
        return {"enable_thinking": isinstance(asked, ThinkingOn)} | (self.chat_template_kwargs or {})


class CountTokensRequest(ConversationFields):
    """Body of POST /v1/messages/count_tokens."""

    def chat_request(self, front: Front) -> ChatRequest:
        """The chat request whose prompt is counted. Raises APIError."""
        return checked(ChatRequest, self.chat_fields(front))


class MessagesRequest(ConversationFields, GenerationFields):
    """Body of POST /v1/messages."""

    not_offered: ClassVar[Mapping[str, str]] = _NOT_OFFERED

    max_tokens: Annotated[int, Field(ge=1, le=INT32), WHOLE] = Field(
        description="Lowered to what fits into the context after the prompt."
    )
    stop_sequences: Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    metadata: Metadata | None = Field(None, description="Accepted and ignored.")
    service_tier: Literal["auto", "standard_only"] | None = None

    def chat_request(self, front: Front) -> ChatRequest:
        """The chat request that this body stands for. Raises APIError."""
        given = {name: getattr(self, name) for name in GenerationFields.model_fields}
        own = {
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "response_format": self._response_format(),
        }
        return checked(ChatRequest, given | self.chat_fields(front) | own)

    def _response_format(self) -> Any:
        asked = self.output_config.format if self.output_config is not None else None
        if asked is None:
            return None
        if self.structured_outputs is not None:
            raise refused(
                "output_config.format and structured_outputs are both given. Give one.", param="output_config"
            )
        return {"type": "json_schema", "json_schema": {"name": "output", "schema": asked.schema_}}
